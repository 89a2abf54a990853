"""An application server outside becomes an API invoker and talks to a UE through the MSGin5G Server itself as the API exposing
function (TS 33.501 clause Y.3), from onboarding to delivered messages, once with each method of CAPIF-2e: PKI, OAUTH, PSK.
Nothing but lab.json and docs/reference/capif.md.

    outside_server.py LAB_JSON CAPIF SERVER

CAPIF is the root of the core function at which the server publishes, SERVER where UEs reach it.
"""

import sys
import tempfile
import time

from capif_tokens import refused_tokens
from external import MESSAGE, REGISTRATIONS, External, converse, message_to
from invoker import Invoker, credentials, interface_for, root_of
from peer import TIMEOUT_SECONDS, Lab, refused
from ue import Connection, Network, Ue, subscribers


def published(invoker):
    """What the server exposes, once it has published it in the background: three APIs at one function."""
    give_up_at = time.monotonic() + TIMEOUT_SECONDS
    while True:
        found = invoker.discover()
        if len(found) == 3:
            profiles = {api["apiName"]: api["aefProfiles"] for api in found}
            assert set(profiles) == {"msgs-asregistration", "msgs-msgdelivery", "msgs-topiclistevent"}, profiles
            (aef_id,) = {profile["aefId"] for each in profiles.values() for profile in each}
            print(f"published by {aef_id}")
            return profiles["msgs-msgdelivery"][0]
        assert time.monotonic() < give_up_at, found
        time.sleep(0.1)


def elsewhere_granted(lab_json, folder, weather):
    """The same application server's token of the lab's own core function, for the NEF: good there, and of a name that is trusted
    here, too."""
    lab = Lab(lab_json)
    invoker = Invoker(lab, folder, "elsewhere", credentials(lab, weather.service_id)[0])
    assert invoker.onboard().status_code == 201
    profile = invoker.discover(**{"api-name": "msgs-msgdelivery"})[0]["aefProfiles"][0]
    invoker.by_oauth(profile)
    return {"of the core function elsewhere": invoker.token().json()["access_token"], "the NRF's": lab.peer("nef").token("AF", "msgs-msgdelivery")}


def main(lab_json, capif, server):
    lab, network = Lab(lab_json), Network(lab_json)
    lab.core = lab.core | {"capif": capif}
    ue = Ue(network, subscribers(network, 1)[0]).authenticate()
    device = Connection(ue, "openssl tls1.3", server=network.lab["server"] | {"coaps_tcp": server})
    assert device.register()[0] == "2.01"
    weather, relay = External(lab, 0), External(lab, 1)
    with tempfile.TemporaryDirectory() as folder:
        invoker = Invoker(lab, folder, "weather", credentials(lab, weather.service_id)[0])
        answer = invoker.onboard()
        assert answer.status_code == 201, (answer.status_code, answer.text)
        profile = published(invoker)
        for method, way in (("PKI", invoker.by_pki), ("OAUTH", invoker.by_oauth), ("PSK", invoker.by_psk)):
            ask = way(profile)
            converse(weather, ask, "localhost", device, ue)
            # It is the application server of the names that the operator tied to its credential, and no other.
            refused(ask("POST", REGISTRATIONS, {"asSvcId": relay.service_id}), 403, "ORIGINATOR_NOT_ALLOWED")
            refused(ask("POST", MESSAGE, message_to(ue, relay.address(), b"forged")), 403, "ORIGINATOR_NOT_ALLOWED")
            elsewhere = {"asSvcId": weather.service_id, "targetUri": "https://127.0.0.1:9/in"}
            refused(ask("POST", REGISTRATIONS, elsewhere), 403, "TARGET_URI_NOT_ALLOWED")
            print(f"held: {method}", flush=True)
        invoker.by_oauth(profile)
        root = root_of(interface_for(profile, "OAUTH"))
        probe = lambda token: invoker.peer.post(f"{root}{MESSAGE}", message_to(ue, relay.address(), b"forged"), token=token)
        own = invoker.token().json()["access_token"]
        refused_tokens(probe, own, lab.path("state/own-capif/token.key"), profile["aefId"], elsewhere_granted(lab_json, folder, weather))
        print("held: tokens", flush=True)
        left = invoker.offboard()
        assert left.status_code == 204, (left.status_code, left.text)
        give_up_at = time.monotonic() + TIMEOUT_SECONDS
        while True:
            response = invoker.peer.post(f"{root}{MESSAGE}", message_to(ue, weather.address(), b"late"))
            if response.status_code == 403 and response.json().get("cause") == "INVOKER_NOT_TRUSTED":
                break
            assert time.monotonic() < give_up_at, (response.status_code, response.text)
            time.sleep(0.05)
    device.close()
    print("all held")


if __name__ == "__main__":
    main(*sys.argv[1:])
