"""An NRF that shares no code with this project: hypercorn over HTTP/2 with mutual TLS, tokens by the `cryptography` package.

    nrf.py CERTIFICATE KEY CA PORT NF_INSTANCE_ID KEY_SET

Writes the public key of its tokens to KEY_SET and prints `{"ready": true}`, then one line of JSON for each request that it
answered and each command that it obeyed. Commands on standard input: `forget ID` drops a registration; `key other` signs tokens with a key that is in no key
set, `key own` with the one that is. What it does otherwise than the lab's NRF, as TS 29.510 lets it: services are told as
`nfServiceList`, tokens are for instances and not for a type, and objects have members of a later release.
"""

import asyncio
import base64
import json
import pathlib
import ssl
import sys
import threading
import time
import urllib.parse

from asgi import body_of, lifespan
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypercorn.asyncio import serve
from hypercorn.config import Config

MANAGEMENT, DISCOVERY, TOKEN = "/nnrf-nfm/v1/nf-instances/", "/nnrf-disc/v1/nf-instances", "/oauth2/token"
KID = "another-make-1"


def b64url(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def services(profile):
    return [*profile.get("nfServices", []), *profile.get("nfServiceList", {}).values()]


def serves(profile, indicator):
    named = [one for info in profile.get("aanfInfoList", {}).values() for one in info.get("routingIndicators", [])]
    return not named or indicator in named


class Nrf:
    def __init__(self, nf_instance_id):
        self.nf_instance_id, self.profiles = nf_instance_id, {}
        self.own, self.other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self.key = self.own

    def key_set(self):
        point = self.own.public_key().public_numbers()
        x, y = (b64url(number.to_bytes(32, "big")) for number in (point.x, point.y))
        return {"keys": [{"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": KID, "use": "sig", "alg": "ES256"}]}

    def obey(self, commands):
        for command in commands:
            match command.split():
                case ["forget", nf_instance_id]:
                    self.profiles.pop(nf_instance_id, None)
                case ["key", which]:
                    self.key = {"own": self.own, "other": self.other}[which]
            print(json.dumps({"obeyed": command.strip()}), flush=True)

    def answer(self, method, path, query, headers, body):
        """What was asked, for the record; status, media type and body."""
        if path.startswith(MANAGEMENT):
            return self.manage(method, path.removeprefix(MANAGEMENT), headers, body)
        if (method, path) == ("GET", DISCOVERY):
            return self.discover(dict(urllib.parse.parse_qsl(query, strict_parsing=True)))
        if (method, path) == ("POST", TOKEN) and headers["content-type"] == "application/x-www-form-urlencoded":
            return self.token(dict(urllib.parse.parse_qsl(body.decode(), strict_parsing=True)))
        return {"operation": "unknown", "path": path}, 404, "application/problem+json", {"status": 404}

    def manage(self, method, nf_instance_id, headers, body):
        record, known = {"id": nf_instance_id}, nf_instance_id in self.profiles
        if method == "PUT":
            profile = json.loads(body)
            assert profile["nfInstanceId"] == nf_instance_id, profile
            self.profiles[nf_instance_id] = profile
            told = profile | {"heartBeatTimer": 1, "memberOfALaterRelease": {"a": [1]}}
            return record | {"operation": "register", "profile": profile}, 200 if known else 201, "application/json", told
        if not known:
            return record | {"operation": "stranger"}, 404, "application/problem+json", {"status": 404}
        if method == "PATCH":
            assert headers["content-type"] == "application/json-patch+json", headers
            assert {"op": "replace", "path": "/nfStatus", "value": "REGISTERED"} in json.loads(body), body
            return record | {"operation": "heart beat"}, 204, None, None
        assert method == "DELETE", method
        del self.profiles[nf_instance_id]
        return record | {"operation": "deregister"}, 204, None, None

    def discover(self, query):
        wanted, found = query.get("service-names", "").split(","), []
        for profile in self.profiles.values():
            offered = [service for service in services(profile) if service["serviceName"] in wanted]
            indicator = query.get("routing-indicator")
            if profile["nfType"] == query["target-nf-type"] and offered and (not indicator or serves(profile, indicator)):
                told = {name: value for name, value in profile.items() if name not in ("nfServices", "heartBeatTimer")}
                found.append(told | {"nfServiceList": {service["serviceInstanceId"]: service for service in offered}})
        result = {"validityPeriod": 1, "nfInstances": found, "searchId": "7", "memberOfALaterRelease": True}
        return {"operation": "discover", "query": query, "found": len(found)}, 200, "application/json", result

    def token(self, form):
        record, service = {"operation": "token", "form": form}, form["scope"].split(" ")[0]
        producers = [id for id, profile in self.profiles.items() if profile["nfType"] == form.get("targetNfType")
                     and any(one["serviceName"] == service for one in services(profile))]
        if form["grant_type"] != "client_credentials" or not producers:
            return record | {"granted": False}, 400, "application/json", {"error": "invalid_scope"}
        now = int(time.time())
        claims = {"iss": self.nf_instance_id, "sub": form["nfInstanceId"], "aud": producers, "scope": form["scope"],
                  "iat": now, "exp": now + 300}
        signed = ".".join(b64url(json.dumps(part).encode()) for part in ({"alg": "ES256", "typ": "JWT", "kid": KID}, claims))
        pair = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        token = f"{signed}.{b64url(b''.join(number.to_bytes(32, 'big') for number in pair))}"
        told = {"access_token": token, "token_type": "Bearer", "expires_in": 300, "scope": form["scope"]}
        return record | {"granted": True, "key": "own" if self.key is self.own else "other"}, 200, "application/json", told

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        body = await body_of(receive)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        record, status, media_type, told = self.answer(
            scope["method"], scope["path"], scope["query_string"].decode(), headers, body)
        print(json.dumps(record | {"http": scope["http_version"]}), flush=True)
        fields = [(b"cache-control", b"no-store")] + ([(b"content-type", media_type.encode())] if media_type else [])
        if status == 201:
            fields.append((b"location", scope["path"].encode()))
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": json.dumps(told).encode() if media_type else b""})


async def main(certificate, key, ca, port, nf_instance_id, key_set):
    nrf = Nrf(nf_instance_id)
    pathlib.Path(key_set).write_text(json.dumps(nrf.key_set()))
    config = Config()
    config.bind, config.alpn_protocols, config.errorlog = [f"127.0.0.1:{port}"], ["h2"], None
    config.certfile, config.keyfile = certificate, key
    config.ca_certs, config.verify_mode = ca, ssl.CERT_REQUIRED
    threading.Thread(target=nrf.obey, args=(sys.stdin,), daemon=True).start()
    serving = asyncio.ensure_future(serve(nrf, config, shutdown_trigger=asyncio.Event().wait))
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            break
        except ConnectionRefusedError:
            assert not serving.done(), serving.exception()
            await asyncio.sleep(0.05)
    print(json.dumps({"ready": True}), flush=True)
    await serving


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
