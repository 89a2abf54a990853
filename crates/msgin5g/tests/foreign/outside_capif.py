"""An application server outside becomes an API invoker and talks to a UE, from onboarding to delivered messages, once with each
method of CAPIF-2e: PKI, OAUTH, PSK (TS 33.122 clause 6.5.2). Nothing but lab.json and docs/reference/capif.md.

    outside_capif.py LAB_JSON
"""

import sys
import tempfile

from external import External, converse
from invoker import Invoker, credentials
from peer import Lab
from ue import Connection, Network, Ue, subscribers


def main(lab_json):
    lab, network = Lab(lab_json), Network(lab_json)
    ue = Ue(network, subscribers(network, 1)[0]).authenticate()
    device = Connection(ue, "openssl tls1.3")
    assert device.register()[0] == "2.01"
    weather = External(lab)
    with tempfile.TemporaryDirectory() as folder:
        invoker = Invoker(lab, folder, "weather", credentials(lab, weather.service_id)[0])
        answer = invoker.onboard()
        assert answer.status_code == 201, (answer.status_code, answer.text)
        found = invoker.discover(**{"api-name": "msgs-msgdelivery"})
        assert [api["apiName"] for api in found] == ["msgs-msgdelivery"], found
        profile = found[0]["aefProfiles"][0]
        # One after the other: each agreement takes the place of the one before, at once.
        for method, way in (("PKI", invoker.by_pki), ("OAUTH", invoker.by_oauth), ("PSK", invoker.by_psk),
                            ("OAUTH again", invoker.by_oauth), ("PKI again", invoker.by_pki)):
            converse(weather, way(profile), "localhost", device, ue)
            print(f"held: {method}", flush=True)
        left = invoker.offboard()
        assert left.status_code == 204, (left.status_code, left.text)
    device.close()
    print("all held")


if __name__ == "__main__":
    main(sys.argv[1])
