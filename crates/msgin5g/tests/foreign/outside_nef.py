"""An application server outside the operator's domain talks to a UE through the NEF: mutual TLS and OAuth 2.0 (TS 33.501
clause 12), nothing but lab.json and docs/reference/nef.md.

    outside_nef.py LAB_JSON
"""

import sys

from external import External, converse
from peer import Lab
from ue import Connection, Network, Ue, subscribers


def main(lab_json):
    lab, network = Lab(lab_json), Network(lab_json)
    ue = Ue(network, subscribers(network, 1)[0]).authenticate()
    device = Connection(ue, "openssl tls1.3")
    assert device.register()[0] == "2.01"
    weather = External(lab)
    converse(weather, weather.ask, "127.0.0.1", device, ue)
    # A token for one API is enough for that API.
    only = weather.granted("msgs-asregistration")
    made = weather.post(f"{weather.root}/msgs-asregistration/v1/registrations", {"asSvcId": weather.service_id}, token=only)
    assert made.status_code == 201, (made.status_code, made.text)
    device.close()
    print("all held")


if __name__ == "__main__":
    main(sys.argv[1])
