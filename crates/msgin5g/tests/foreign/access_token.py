"""A network function made of curl and openssl: gets an access token from the NRF with lab.json's nf_client, checks its
signature with the key that the NRF gives out, and uses it at the AUSF; is refused what is not for it."""

import base64
import json
import subprocess
import sys
import tempfile

from ue import TIMEOUT_SECONDS, Network

# A P-256 public key in DER up to its point (RFC 5480), and INTEGER and SEQUENCE of DER.
P256_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def der_integer(octets):
    octets = octets.lstrip(b"\0") or b"\0"
    octets = b"\0" + octets if octets[0] & 0x80 else octets
    return bytes([2, len(octets)]) + octets


def curl(network, identity, *arguments):
    """One request. Returns status, headers and body."""
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--http2", "--include", "--max-time", str(TIMEOUT_SECONDS),
         "--cacert", network.directory / network.lab["ca"],
         "--cert", network.directory / identity["cert"], "--key", network.directory / identity["key"], *arguments],
        capture_output=True, check=True)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers, body


def ask(network, identity, **form):
    form = {"grant_type": "client_credentials", "nfInstanceId": identity["nf_instance_id"], "nfType": "AMF",
            "targetNfType": "AUSF", "scope": "nausf-auth"} | form
    fields = [part for name, value in form.items() for part in ("--data-urlencode", f"{name}={value}")]
    status, headers, body = curl(network, identity, *fields, f"{network.lab['core']['nrf']}/oauth2/token")
    assert headers["cache-control"] == "no-store" and headers["pragma"] == "no-cache", headers
    assert headers["content-type"] == "application/json", headers
    return status, json.loads(body)


def verified(token, key):
    """The claims of a token whose ES256 signature OpenSSL finds right."""
    signed, _, signature = token.rpartition(".")
    header, claims = (json.loads(decode(part)) for part in signed.split("."))
    assert header["alg"] == "ES256" and header["kid"] == key["kid"], (header, key)
    signature = decode(signature)
    pair = der_integer(signature[:32]) + der_integer(signature[32:])
    with tempfile.TemporaryDirectory() as folder:
        for name, octets in [("key", P256_PREFIX + b"\4" + decode(key["x"]) + decode(key["y"])), ("signed", signed.encode()),
                             ("signature", bytes([0x30, len(pair)]) + pair)]:
            with open(f"{folder}/{name}", "wb") as file:
                file.write(octets)
        subprocess.run(["openssl", "dgst", "-sha256", "-keyform", "DER", "-verify", f"{folder}/key", "-signature",
                        f"{folder}/signature", f"{folder}/signed"], check=True, capture_output=True)
    return claims


def main(lab_json):
    network = Network(lab_json)
    amf, billing = network.lab["nf_client"], network.lab["application_servers"][0]
    status, granted = ask(network, amf)
    assert status == 200 and granted["token_type"] == "Bearer" and granted["expires_in"] > 0, granted

    status, _, keys = curl(network, amf, f"{network.lab['core']['nrf']}/oauth2/jwks")
    claims = verified(granted["access_token"], json.loads(keys)["keys"][0])
    assert claims["sub"] == amf["nf_instance_id"] and claims["aud"] == "AUSF", claims
    assert claims["scope"] == "nausf-auth" and claims["iss"] and claims["exp"], claims

    body = {"supiOrSuci": network.lab["subscribers"][0]["supi"], "servingNetworkName": network.serving_network_name}
    status, _, answer = curl(network, amf, "--header", "content-type: application/json",
                             "--header", f"authorization: Bearer {granted['access_token']}", "--data", json.dumps(body),
                             f"{network.lab['core']['ausf']}/nausf-auth/v1/ue-authentications")
    assert status == 201, (status, answer)

    for error, identity, form in [
        ("invalid_client", billing, {"nfInstanceId": amf["nf_instance_id"]}),
        ("invalid_client", amf, {"nfType": "AUSF"}),
        ("invalid_scope", amf, {"targetNfType": "AANF", "scope": "naanf-akma"}),
        ("invalid_scope", billing, {"nfType": "AF", "targetNfType": "AF", "scope": "ss-upr"}),
        ("unsupported_grant_type", amf, {"grant_type": "password"}),
        ("invalid_request", amf, {"nfInstanceId": "nobody"}),
    ]:
        status, refusal = ask(network, identity, **form)
        assert (status, refusal["error"]) == (400, error), (form, status, refusal)

    # An application server gets one for the MSGin5G Server.
    status, granted = ask(network, billing, nfType="AF", targetNfType="AF", scope="msgs-msgdelivery")
    assert status == 200, granted
    print("all held")


if __name__ == "__main__":
    main(sys.argv[1])
