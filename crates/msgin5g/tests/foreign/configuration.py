"""A UE that knows its USIM and the Configuration Function's address, and nothing else.

Usage: configuration.py lab.json

It asks su-uc (TS 24.546 clause C.3) over TLS-PSK and CoAP over TCP with somebody else's clients, reads the document with
the standard library's XML parser, observes it (RFC 7641, RFC 8323 clause 7), and registers at the server that it was told.
"""

import sys
import urllib.parse
import xml.etree.ElementTree

import ue
from ue import CLIENTS, Connection, ConnectionEnded, Network, Ue, frame, option, subscribers

PATH = ["su-uc", "v1", "val-services", "msgin5g", "ue-configurations"]
XML = bytes([41])


class Configuration(Connection):
    def __init__(self, device, client, **members):
        core = device.network.lab["core"]
        server = {"fqdn": core["configuration_fqdn"], "coaps_tcp": core["configuration_coaps_tcp"], "path": ""}
        super().__init__(device, client, server=server, **members)

    def get(self, observe=None, token=None, query=(), path=PATH):
        if token is None:
            self.token += 1
            token = self.token.to_bytes(2, "big")
        options, number = b"", 0
        named = [(11, segment.encode()) for segment in path] + [(15, text.encode()) for text in query] + [(17, XML)]
        if observe is not None:
            named.insert(0, (6, observe))
        for next_number, value in named:
            options, number = options + option(next_number, value, next_number - number), next_number
        self._write(frame(0x01, token, options, b""))
        return token

    def told(self, asked):
        """The next response: code, whether it goes on, and the elements of a document by local name."""
        code, token, payload = self._next(self.responses)
        assert token == asked, "another token than the request's"
        code, options = f"{code >> 5}.{code & 31:02}", self.options[token]
        if code != "2.05":
            return code, 6 in options, payload
        assert options[12] == XML, options
        root = xml.etree.ElementTree.fromstring(payload)
        names = {element.tag.rpartition("}")[2]: (element.text or "").strip() for element in root.iter()}
        assert root.tag.rpartition("}")[2] == "seal-UE-configuration" and "on-network" in names, payload
        return code, 6 in options, names


def provisioning(network, method, subscriber, name):
    identity = {"cert": "pki/provisioner.pem", "key": "pki/provisioner.key"}
    root, quoted = network.lab["core"]["configuration"], urllib.parse.quote(name, safe="")
    url = f"{root}/msgin5g-configuration/v1/associations/{subscriber['supi']}/{quoted}"
    status, _ = network.http(method, url, {}, identity)
    assert status in (201, 204), status


def learns_and_registers(network, device):
    for client in CLIENTS:
        connection = Configuration(device, client)
        code, goes_on, names = connection.told(connection.get())
        assert (code, goes_on) == ("2.05", False), (code, goes_on)
        assert names["MSGin5G-UE-Service-id"] == device.service_id, names
        assert names["Segment-size"] == "2048", names
        connection.close()
    address = urllib.parse.urlsplit(names["MSGin5G-Server-address"])
    assert address.scheme == "coaps+tcp", names
    server = {"fqdn": address.hostname, "path": address.path.removeprefix("/"), "coaps_tcp": names["Connect-address"]}
    assert server["coaps_tcp"].endswith(f":{address.port}"), names
    connection = Connection(device, "openssl tls1.3", server=server)
    code, answer = connection.register(names["MSGin5G-UE-Service-id"])
    assert code == "2.01", (code, answer)
    connection.close()


def is_told_of_changes(network, device):
    own, new = device.service_id, "a-new-name@lab.example"
    connection = Configuration(device, "openssl tls1.3")
    token = connection.get(observe=b"")
    code, goes_on, names = connection.told(token)
    assert (code, goes_on, names["MSGin5G-UE-Service-id"]) == ("2.05", True, own), (code, goes_on, names)
    provisioning(network, "PUT", device.subscriber, new)
    provisioning(network, "DELETE", device.subscriber, own)
    code, goes_on, names = connection.told(token)
    assert (code, goes_on, names["MSGin5G-UE-Service-id"]) == ("2.05", True, new), (code, goes_on, names)
    connection.get(observe=b"\x01", token=token)
    code, goes_on, names = connection.told(token)
    assert (code, goes_on) == ("2.05", False), "deregistered with the same token"
    token = connection.get(observe=b"", query=[f"ue-service-id={new}"])
    assert connection.told(token)[:2] == ("2.05", True)
    provisioning(network, "PUT", device.subscriber, own)
    provisioning(network, "DELETE", device.subscriber, new)
    code, goes_on, _ = connection.told(token)
    assert (code, goes_on) == ("4.04", False), "the one that was asked for is gone"
    connection.close()


def is_refused(network, device, other):
    connection = Configuration(device, "openssl tls1.3")
    code, _, answer = connection.told(connection.get(query=[f"ue-service-id={other.service_id}"]))
    assert code == "4.04" and b"NOT_ASSOCIATED" in answer, (code, answer)
    assert connection.told(connection.get(path=["msgin5g"]))[0] == "4.04"
    connection.close()
    # The key for the MSGin5G Server's name opens nothing here, nor does no key at all.
    for k_af in (device.k_af(ue.TLS_1_3), bytes(32)):
        try:
            Configuration(device, "openssl tls1.3", k_af=k_af)
        except ConnectionEnded:
            continue
        raise AssertionError("connected without the key for this name")


def main(lab_json):
    network = Network(lab_json)
    first, second = (Ue(network, subscriber).authenticate() for subscriber in subscribers(network, 2))
    learns_and_registers(network, first)
    is_refused(network, first, second)
    is_told_of_changes(network, first)
    print("all held")


if __name__ == "__main__":
    main(sys.argv[1])
