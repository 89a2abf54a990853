"""Application functions outside whose certificate is withdrawn, and CRLs that run out and are renewed, at the running NEF.

    outside_revoked.py LAB_JSON MSGIN5G
"""

import os
import subprocess
import sys
import tempfile
import time

from external import External
from outside import Scene, openssl
from peer import refused
from tokens import connected, ends

# How long the NEF may take to see another CRL. It promises 5 seconds; the rest is for a machine that is busy.
PATIENCE_SECONDS = 120

REVOKED, RUN_OUT = "SSLV3_ALERT_CERTIFICATE_REVOKED", "SSLV3_ALERT_CERTIFICATE_EXPIRED"

CONFIGURATION = """
[ca]
default_ca = outside
[outside]
database = {folder}/index.txt
crlnumber = {folder}/crlnumber
certificate = {pki}/af-ca.pem
private_key = {pki}/af-ca.key
default_md = sha256
"""


def until(scene, external, wanted):
    """Waits until a handshake of `external` at the NEF comes to what is wanted."""
    end = time.monotonic() + PATIENCE_SECONDS
    while (reason := scene.handshake(external.root, cert=external.cert, speaks=True)) != wanted:
        assert time.monotonic() < end, (external.service_id, reason)
        time.sleep(0.1)


def replace(path, content):
    fresh = path.with_suffix(".fresh")
    fresh.write_text(content)
    os.replace(fresh, path)


def run_out(scene):
    """A CRL of the authority outside whose next update is past."""
    configuration = scene.folder / "ca.conf"
    configuration.write_text(CONFIGURATION.format(folder=scene.folder, pki=scene.lab.path("pki")))
    (scene.folder / "index.txt").write_text("")
    (scene.folder / "crlnumber").write_text("01")
    return openssl("ca", "-gencrl", "-config", configuration, "-crl_lastupdate", "20200101000000Z",
                   "-crl_nextupdate", "20210101000000Z").decode()


def main(lab_json, program):
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(lab_json, folder)
        lab, crls = scene.lab, scene.lab.path("pki/nef-clients.crl")
        weather, other = External(lab, 0), External(lab, 1)
        for external in (weather, other):
            external.cert = tuple(lab.path(external.description[file]) for file in ("cert", "key"))
            until(scene, external, "open")
        token, stream = weather.granted(), connected(lab, weather.root, weather.cert)

        # Withdrawn: no new connection, and what is open is closed; a token that is still good is of no use.
        subprocess.run([program, "lab", "revoke", "--dir", lab.directory, "af-weather"], check=True, stdout=subprocess.DEVNULL)
        until(scene, weather, REVOKED)
        assert ends(stream, time.monotonic() + PATIENCE_SECONDS), "it goes on with a revoked certificate"
        stolen = other.post(f"{other.root}/3gpp-akma/v1/retrieve",
                            {"afId": "weather.outside.example:0100000007", "aKId": "0.a@b.example"}, token=token)
        refused(stolen, 401, "INVALID_TOKEN")
        until(scene, other, "open")

        # A CRL that has run out closes the door to everybody whose authority it is of.
        of_capif = lab.path("pki/capif/ca.crl").read_text()
        replace(crls, run_out(scene) + of_capif)
        until(scene, other, RUN_OUT)
        # One that cannot be read leaves the earlier one, which has run out, in force.
        replace(crls, "no CRL")
        until(scene, other, RUN_OUT)
        # Renewed, as the lab does every day and with every certificate that it withdraws: they come again, and nobody else.
        subprocess.run([program, "lab", "revoke", "--dir", lab.directory, "af-weather"], check=True, stdout=subprocess.DEVNULL)
        until(scene, other, "open")
        until(scene, weather, REVOKED)
        assert other.granted()
    print("all held")


if __name__ == "__main__":
    main(*sys.argv[1:3])
