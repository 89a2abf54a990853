"""What a stranger, an impostor and a broken device get told. Every case states the alert or the code."""

import json
import resource
import socket
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

from cases import Cases
from service import deliver
from ue import CLIENTS, Connection, ConnectionEnded, Network, Ue, frame, option, subscribers

TLS_1_3, ECDHE_1_2 = "openssl tls1.3", "openssl tls1.2 ecdhe-psk"
case = Cases()


class Scene:
    def __init__(self, lab_json):
        self.network = Network(lab_json)
        self.alice, self.bob, self.carol = (Ue(self.network, s).authenticate() for s in subscribers(self.network, 3))
        host, _, port = self.network.lab["server"]["coaps_tcp"].rpartition(":")
        self.endpoint = (host, int(port))

    def registered(self, ue, client=TLS_1_3):
        connection = Connection(ue, client)
        code, answer = connection.register()
        assert code == "2.01", (code, answer)
        return connection

    def still_serves(self):
        connection = self.registered(self.carol)
        connection.close()


def refused(attempt, *, openssl=None, gnutls=None):
    """The handshake fails with the stated alert."""
    try:
        attempt().close()
    except ConnectionEnded as ended:
        log = str(ended)
        wanted = f"alert number {openssl}" if openssl else f"[{gnutls}]"
        assert wanted in log, f"wanted {wanted!r} in: {log}"
        return
    raise AssertionError("the handshake was accepted")


def answered(pair, code, cause=None):
    got, answer = pair
    assert got == code, f"wanted {code}, got {got} {answer}"
    if cause:
        assert answer and answer.get("failureCause") == cause, f"wanted cause {cause}: {answer}"


# --- the handshake ----------------------------------------------------------------------------------------


@case
def wrong_k_af_in_tls_1_3_is_decrypt_error(scene):
    refused(lambda: Connection(scene.alice, TLS_1_3, k_af=bytes(32)), openssl=51)


@case
def wrong_k_af_in_tls_1_2_is_bad_record_mac(scene):
    refused(lambda: Connection(scene.alice, ECDHE_1_2, k_af=bytes(32)), openssl=20)


@case
def unknown_a_kid_in_tls_1_3_is_handshake_failure(scene):
    stranger = f"0.{'ab' * 32}@5gc.{scene.network.domain}"
    refused(lambda: Connection(scene.alice, TLS_1_3, a_kid=stranger), openssl=40)


@case
def unknown_a_kid_in_tls_1_2_is_unknown_psk_identity(scene):
    stranger = f"0.{'ab' * 32}@5gc.{scene.network.domain}"
    refused(lambda: Connection(scene.alice, ECDHE_1_2, a_kid=stranger), openssl=115)


@case
def identity_without_a_kid_is_refused(scene):
    refused(lambda: Connection(scene.alice, TLS_1_3, a_kid=" "), openssl=40)


@case
def a_kid_of_an_older_authentication_is_refused(scene):
    Connection(scene.alice, TLS_1_3).close()
    old, old_key = scene.alice.a_kid, scene.alice.k_af(CLIENTS[TLS_1_3][0])
    scene.alice.authenticate()
    assert scene.alice.a_kid != old
    refused(lambda: Connection(scene.alice, TLS_1_3, a_kid=old, k_af=old_key), openssl=40)
    Connection(scene.alice, TLS_1_3).close()


@case
def another_server_name_is_unrecognized_name(scene):
    refused(lambda: Connection(scene.alice, TLS_1_3, server_name="elsewhere.example"), openssl=112)


@case
def psk_without_an_ephemeral_key_share_is_handshake_failure(scene):
    CLIENTS["gnutls psk_ke only"] = (CLIENTS[TLS_1_3][0], ["NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+PSK"])
    refused(lambda: Connection(scene.alice, "gnutls psk_ke only"), gnutls=40)


@case
def every_separator_is_understood(scene):
    for separator in (";", ".", ""):
        Connection(scene.alice, TLS_1_3, separator=separator).close()


# --- registration -----------------------------------------------------------------------------------------


@case
def a_message_before_registration_is_4_01(scene):
    connection = Connection(scene.alice, TLS_1_3)
    answered(connection.send(scene.bob.address(), b"too early"), "4.01", "NOT_REGISTERED")
    connection.close()


@case
def somebody_elses_ue_service_id_is_4_03(scene):
    connection = Connection(scene.alice, TLS_1_3)
    answered(connection.register(scene.bob.service_id), "4.03", "NOT_ASSOCIATED")
    answered(connection.send(scene.bob.address(), b"still nobody"), "4.01", "NOT_REGISTERED")
    connection.close()


@case
def a_ue_service_id_without_association_is_4_03(scene):
    connection = Connection(scene.alice, TLS_1_3)
    answered(connection.register("nobody-has-this@lab.example"), "4.03", "NOT_ASSOCIATED")
    connection.close()


@case
def a_newer_registration_closes_the_older_connection(scene):
    first, second = scene.registered(scene.alice), scene.registered(scene.alice)
    try:
        while first._next(first.incoming):
            pass
    except ConnectionEnded:
        pass
    answered(second.send({"addrType": "UE", "addr": "nobody@lab.example"}, b"x"), "4.04", "UNKNOWN_TARGET")
    second.close()


# --- messages ---------------------------------------------------------------------------------------------


@case
def a_forged_originator_is_4_03(scene):
    connection = scene.registered(scene.alice)
    answered(connection.send(scene.carol.address(), b"from bob, honestly", originator=scene.bob.address()),
             "4.03", "ORIGINATOR_NOT_ALLOWED")
    report = dict(msgType="IMDN", oriAddr=scene.bob.address(), destAddr=scene.carol.address(), msgId="m",
                  delivSt="REPT_DELY_SUCCESS")
    answered(connection.request(**report), "4.03", "ORIGINATOR_NOT_ALLOWED")
    connection.close()


@case
def an_unknown_target_is_4_04(scene):
    connection = scene.registered(scene.alice)
    answered(connection.send({"addrType": "UE", "addr": "nobody@lab.example"}, b"x"), "4.04", "UNKNOWN_TARGET")
    answered(connection.send({"addrType": "AS", "addr": "nothing@lab.example"}, b"x"), "4.04", "UNKNOWN_TARGET")
    connection.close()


@case
def a_payload_over_the_limit_is_4_13(scene):
    connection = scene.registered(scene.alice)
    answered(connection.send(scene.bob.address(), bytes(2049)), "4.13", "PAYLOAD_TOO_LARGE")
    connection.close()


@case
def malformed_json_is_4_00_and_the_connection_goes_on(scene):
    connection = scene.registered(scene.alice)
    good = {"msgType": "MSG", "oriAddr": scene.alice.address(), "destAddr": scene.bob.address(), "msgId": "m-1"}
    for payload in (b"", b"{", b"null", b"[]", b'"MSG"', b"\xff\xfe", b"{}", b"[" * 5000,
                    json.dumps(good | {"msgId": 7}).encode(), json.dumps(good | {"msgId": ""}).encode(),
                    json.dumps(good | {"payload": "not base64!"}).encode(),
                    json.dumps(good | {"oriAddr": "alice"}).encode(),
                    json.dumps({k: v for k, v in good.items() if k != "destAddr"}).encode(),
                    json.dumps(good | {"stoAndFwInd": True, "stoAndFwParams": {"exprTime": "tomorrow"}}).encode(),
                    json.dumps(good)[:-1].encode() + b',"msgId":"twice"}'):
        answered(connection.request_raw(payload), "4.00", "MALFORMED")
    connection.close()


@case
def a_message_id_used_again_for_other_content_is_refused(scene):
    sender, receiver, once = scene.registered(scene.alice), scene.registered(scene.bob), str(uuid.uuid4())
    code, _ = deliver(sender, receiver, scene.bob, once, b"first")
    assert code == "2.04"
    answered(sender.send(scene.bob.address(), b"first", message_id=once, report=True), "2.04")
    answered(sender.send(scene.bob.address(), b"second", message_id=once, report=True), "4.00",
             "MESSAGE_ID_REUSED")
    assert receiver.requests.empty(), "a repeated message was delivered again"
    sender.close()
    receiver.close()


@case
def the_wrong_resource_method_or_format_is_named(scene):
    connection = scene.registered(scene.alice)
    path = b"".join(option(11, part.encode(), 0 if i else 11) for i, part in enumerate(connection.path.split("/")))
    for code, options, wanted in ((0x01, path, "4.05"), (0x02, option(11, b"elsewhere", 11) + option(12, bytes([50]), 1), "4.04"),
                                  (0x02, path + option(12, bytes([60]), 1), "4.15"), (0x02, option(9, b"?", 9), "4.02")):
        connection._write(frame(code, b"tk", options, b"{}"))
        got, token, _ = connection._next(connection.responses)
        assert token == b"tk" and f"{got >> 5}.{got & 31:02}" == wanted, (wanted, got)
    connection.close()


@case
def a_frame_over_the_limit_is_aborted(scene):
    connection = scene.registered(scene.alice)
    connection._write(bytes([15 << 4]) + (0x7FFFFFFF).to_bytes(4, "big") + b"\x02")
    aborted(connection)


@case
def a_reserved_token_length_is_aborted(scene):
    connection = scene.registered(scene.alice)
    connection._write(bytes([0x0F, 0x02]))
    aborted(connection)


def aborted(connection):
    codes = []
    try:
        while True:
            codes.append(connection._next(connection.incoming)[0])
    except ConnectionEnded:
        pass
    assert 0xE5 in codes, f"no 7.05 Abort, but {codes}"
    connection.close()


@case
def a_frame_that_never_ends_loses_nothing_of_others(scene):
    connection = scene.registered(scene.alice)
    connection._write(frame(0x02, b"t", option(11, b"msgin5g", 11), b"x" * 500)[:-100])
    scene.still_serves()
    connection.close()


@case
def garbage_instead_of_tls_ends_the_connection(scene):
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(100), bytes(1000), b"\x16\x03\x01\x00\x05\x01\x00\xff\xff\xff",
                    b"\x80" * 70000):
        with socket.create_connection(scene.endpoint, timeout=20) as stranger:
            try:
                stranger.sendall(garbage)
                stranger.shutdown(socket.SHUT_WR)
                while stranger.recv(4096):
                    pass
            except TimeoutError:
                raise
            except OSError:  # reset, broken pipe, no longer connected: it ended
                pass


# --- peers that will not play along -----------------------------------------------------------------------


@case
def a_client_that_reads_nothing_holds_up_nobody(scene):
    sender, deaf, other = scene.registered(scene.alice), scene.registered(scene.bob), scene.registered(scene.carol)
    deaf.process.send_signal(19)  # SIGSTOP: the TLS client no longer reads its socket
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(sender.send, deaf.ue.address(), b"z" * 2000, store="2030-01-01T00:00:00Z")
        for _ in range(20):
            answered(deliver(other, other, other.ue, str(uuid.uuid4()), b"to myself"), "2.04")
        deaf.process.send_signal(18)
        assert deaf.receive()["msgType"] == "MSG"
        code, _ = stuck.result()
        assert code == "2.04"
    for connection in (sender, deaf, other):
        connection.close()


@case
def ten_thousand_handshakes_that_never_finish_shut_nobody_out(scene):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held, refused_by_limit = [], 0
    for number in range(10_000):
        stranger = socket.socket()
        stranger.settimeout(5)
        stranger.bind(("127.0.0.66", 0))
        try:
            stranger.connect(scene.endpoint)
            stranger.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        except OSError:
            refused_by_limit += 1
        held.append(stranger)
        if number % 2_500 == 2_499:
            scene.still_serves()
        if len(held) > min(hard, 12_000) - 200:
            held.pop(0).close()
    scene.still_serves()
    for stranger in held:
        stranger.close()
    scene.still_serves()


def main(lab_json, *names):
    scene = Scene(lab_json)
    case.run(scene, names)
    scene.still_serves()
    print("all held")


if __name__ == "__main__":
    main(*sys.argv[1:])
