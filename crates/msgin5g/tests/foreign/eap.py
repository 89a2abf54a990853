"""The peer's side of EAP-AKA' that shares no code with this project (RFC 9048, RFC 4187; TS 33.501 clause 6.1.3.1, Annex F)."""

import base64
import hashlib
import hmac

from ue import kdf, milenage

RESPONSE, AKA_PRIME, CHALLENGE = 2, 50, 1
AT_RAND, AT_AUTN, AT_RES, AT_MAC = 1, 2, 3, 11


def answered(subscriber, serving_network_name, payload):
    """EAP-Response/AKA'-Challenge to the EAP-Request in `payload`, both in Base64, and K_SEAF in hex."""
    request, name = base64.b64decode(payload), serving_network_name.encode()
    values = attributes(request)
    rand, autn = values[AT_RAND][2:18], values[AT_AUTN][2:18]
    res, ck, ik, _, _ = milenage(bytes.fromhex(subscriber["k"]), bytes.fromhex(subscriber["opc"]), rand)
    keys = kdf(ck + ik, 0x20, name, autn[:6])
    master = master_key(keys[16:] + keys[:16], subscriber["supi"].removeprefix("imsi-").encode())
    k_aut, k_ausf = master[16:48], master[144:176]
    given = values[AT_MAC][2:18]
    assert mac(k_aut, request.replace(given, bytes(16))) == given, "the network did not prove that it knows K"
    attribute = bytes([AT_RES, (4 + len(res)) // 4]) + (8 * len(res)).to_bytes(2, "big") + res
    attribute += bytes([AT_MAC, 5, 0, 0])
    head = bytes([RESPONSE, request[1]]) + (8 + len(attribute) + 16).to_bytes(2, "big") + bytes([AKA_PRIME, CHALLENGE, 0, 0])
    response = head + attribute + mac(k_aut, head + attribute + bytes(16))
    return base64.b64encode(response).decode(), kdf(k_ausf, 0x6C, name).hex()


def attributes(packet):
    assert packet[4:6] == bytes([AKA_PRIME, CHALLENGE]), packet[:8].hex()
    values, rest = {}, packet[8:]
    while rest:
        values[rest[0]], rest = rest[2:4 * rest[1]], rest[4 * rest[1]:]
    return values


def master_key(key, identity):
    """PRF' of RFC 9048 clause 3.4.1: K_encr, K_aut, K_re, MSK, EMSK."""
    master = block = b""
    for number in range(1, 8):
        block = hmac.new(key, block + b"EAP-AKA'" + identity + bytes([number]), hashlib.sha256).digest()
        master += block
    return master


def mac(k_aut, packet):
    return hmac.new(k_aut, packet, hashlib.sha256).digest()[:16]
