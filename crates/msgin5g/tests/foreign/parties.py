"""Everybody who asks a function of the lab something: network functions, application servers, and the parties to CAPIF.

Each is a Peer, so that one program can play all of them.
"""

import json
import pathlib
import subprocess
import time

from peer import TIMEOUT_SECONDS, Peer

INVOKERS = "/api-invoker-management/v1/onboardedInvokers"


class Outside(Peer):
    """An application server outside the operator's domain: every request carries a token of the NEF."""

    def __init__(self, lab, number=0):
        self.description = lab.lab["external_application_servers"][number]
        super().__init__(lab, lab.path(self.description["cert"]), lab.path(self.description["key"]))
        self.service_id, self.bearer = self.description["as_service_id"], None

    def own_token(self):
        if not self.bearer:
            form = {"grant_type": "client_credentials", "client_id": self.description["client_id"]}
            granted = self.http.post(f"{self.lab.core['nef']}/oauth2/token", data=form)
            assert granted.status_code == 200, granted.text
            self.bearer = granted.json()["access_token"]
        return self.bearer

    def request(self, method, url, body=None, **further):
        return super().request(method, url, body, **{"token": self.own_token(), **further})


class Provider:
    """The NEF as a provider at the CAPIF core function: its publishing, exposing and management function."""

    def __init__(self, lab):
        folder = lab.path("state/nef-capif")
        registration = folder / "registration.json"
        self.apis = []
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not self.apis:
            # The NEF registers and publishes in the background, and writes down what it was answered when it has.
            assert time.monotonic() < deadline, "the NEF has not published its APIs"
            if registration.exists():
                registered = json.loads(registration.read_text())
                self.domain, self.aef_id, self.apf_id = (registered[name] for name in ("domain", "aef_id", "apf_id"))
                self.apis = registered["apis"]
            time.sleep(0.1)
        self.aef, self.apf, self.amf = (Peer(lab, folder / f"{name}.pem", folder / f"{name}.key")
                                        for name in ("aef", "apf", "amf"))
        # The core function as the one who calls an AEF.
        self.core = Peer(lab, lab.path("state/capif/core.pem"), lab.path("state/capif/core.key"))


class Onboarding:
    """An API invoker to come: its key, and the credential that it was given."""

    def __init__(self, lab, folder, number):
        self.lab = lab
        self.credential = lab.lab["capif_onboarding"][number]["token"]
        self.key, self.cert = (pathlib.Path(folder) / f"invoker-{number}.{end}" for end in ("key", "pem"))
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.key)
        self.details = {"onboardingInformation": {"apiInvokerPublicKey": openssl("pkey", "-in", self.key, "-pubout")},
                        "notificationDestination": "https://localhost:9/capif"}
        self.nobody = Peer(lab, None, None)

    def invoker(self, answer):
        """Whoever the answer of the core function makes of it."""
        assert answer.status_code == 201, (answer.status_code, answer.text)
        details = answer.json()
        self.cert.write_text(details["onboardingInformation"]["apiInvokerCertificate"])
        peer = Peer(self.lab, self.cert, self.key)
        peer.id = details["apiInvokerId"]
        return peer

    def onboard(self):
        return self.invoker(self.nobody.post(f"{self.lab.core['capif']}{INVOKERS}", self.details, token=self.credential))


def openssl(*arguments):
    return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=True).stdout
