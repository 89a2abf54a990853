"""The foreign UE as a puppet: one JSON command a line on standard input, its outcome as one JSON line on standard output.

A test that breaks the network around the server plays several of these at once and says what each is told.
"""

import base64
import json
import sys

import ue as foreign
from configuration import Configuration
from ue import Connection, ConnectionEnded, Network, Ue, frame, option

# A command that waits for what the test provokes elsewhere waits as long as a busy machine may take.
foreign.TIMEOUT_SECONDS = 90
LATER = "2035-01-01T00:00:00Z"


class Puppet:
    def __init__(self, lab_json, number):
        self.network = Network(lab_json)
        self.ue = Ue(self.network, self.network.lab["subscribers"][int(number)])
        self.connection, self.unacknowledged, self.posted, self.answers = None, [], {}, {}

    def authenticate(self, ausf=None):
        if ausf:
            self.network.lab["core"]["ausf"] = ausf
        return {"a_kid": self.ue.authenticate().a_kid}

    def leave_network(self):
        """The serving network tells AUSF that the UE is gone."""
        root = self.network.lab["core"]["ausf"]
        status, answer = self.network.http("POST", f"{root}/nausf-auth/v1/ue-authentications/deregister",
                                           {"supi": self.ue.subscriber["supi"]})
        assert status == 204, (status, answer)
        return {}

    def connect(self, to, client):
        self.network.lab["server"]["coaps_tcp"] = to
        self.unacknowledged, self.posted, self.answers = [], {}, {}
        try:
            self.connection = Connection(self.ue, client)
        except ConnectionEnded as ended:
            return {"refused": str(ended)}
        return {}

    def register(self, service_id=None):
        return self.answered(self.connection.register(service_id))

    def request(self, members):
        """Any request, and its answer."""
        return self.answered(self.connection.request(**members))

    def request_text(self, text):
        """What may be no JSON at all, and its answer."""
        return self.answered(self.connection.request_raw(text.encode()))

    def post_request(self, name, members):
        """Any request, whose answer is collected under this name."""
        self.posted[self.connection.post(json.dumps(members).encode())] = name
        return {}

    def post_registration(self):
        """Sends REG without waiting for its answer."""
        request = {"msgType": "REG", "ueSvcId": self.ue.service_id}
        self.posted[self.connection.post(json.dumps(request).encode())] = "REG"
        return {}

    def deregister(self):
        return self.answered(self.connection.request(msgType="DEREG", ueSvcId=self.ue.service_id))

    def send(self, to, message_id, store=False):
        return self.answered(self.connection.request_raw(self.message(to, message_id, store)))

    def post(self, to, message_ids, store=False):
        """Sends without waiting for any answer."""
        for message_id in message_ids:
            self.posted[self.connection.post(self.message(to, message_id, store))] = message_id
        return {}

    def collect(self):
        """Waits until all that was posted is answered, or the connection ends."""
        unanswered = {token: name for token, name in self.posted.items() if name not in self.answers}
        try:
            while unanswered:
                token, code, answer = self.connection.answer()
                self.answers[unanswered.pop(token)] = self.answered((code, answer), token)
        except ConnectionEnded:
            assert self.connection.finished.is_set(), "the connection neither ended nor brought an answer"
        return {"answers": self.answers, "unanswered": sorted(unanswered.values())}

    def receive(self, count=1):
        """Takes and acknowledges messages."""
        return {"message_ids": [self.checked(self.connection.receive()) for _ in range(count)]}

    def receive_any(self):
        """Takes and acknowledges whatever comes, as it is."""
        return {"message": self.connection.receive()}

    def take_any(self):
        """Takes whatever comes, and leaves it unacknowledged."""
        token, message = self.connection.take()
        self.unacknowledged.append(token)
        return {"message": message}

    def answer_oldest(self, code, body=None):
        """Answers the oldest of what was taken with this code, as `4.00`, and this JSON."""
        octet = int(code[0]) << 5 | int(code[2:])
        payload = b"" if body is None else json.dumps(body).encode()
        options = option(12, bytes([50]), 12) if payload else b""
        self.connection._write(frame(octet, self.unacknowledged.pop(0), options, payload))
        return {}

    def take(self, count=1):
        """Takes messages and leaves them unacknowledged."""
        taken = [self.connection.take() for _ in range(count)]
        self.unacknowledged += [token for token, _ in taken]
        return {"message_ids": [self.checked(message) for _, message in taken]}

    def acknowledge(self):
        """Acknowledges all that was taken."""
        for token in self.unacknowledged:
            self.connection.acknowledge(token)
        self.unacknowledged = []
        return {}

    def receive_until_end(self):
        """Takes and acknowledges until the server ends the connection."""
        message_ids = []
        try:
            while True:
                message_ids.append(self.checked(self.connection.receive()))
        except ConnectionEnded:
            assert self.connection.finished.is_set(), "the connection did not end"
        return {"message_ids": message_ids}

    def observe_configuration(self, to):
        """Asks the Configuration Function there who it is, and to be told of changes."""
        self.network.lab["core"]["configuration_coaps_tcp"] = to
        self.configuration = Configuration(self.ue, "openssl tls1.3")
        self.observation = self.configuration.get(observe=b"")
        return self.configuration_told()

    def configuration_told(self):
        """The next document: whether more will follow, and its elements by name."""
        code, goes_on, elements = self.configuration.told(self.observation)
        assert code == "2.05", (code, elements)
        return {"goes_on": goes_on, "elements": elements}

    def configuration_end(self):
        """Waits until the Configuration Function's connection ends."""
        return {"diagnostic": self.configuration.end()}

    def end(self):
        return {"diagnostic": self.connection.end()}

    def close(self):
        self.connection.close()
        return {}

    def message(self, to, message_id, store):
        return self.connection.message({"addrType": "UE", "addr": to}, payload_of(message_id), message_id=message_id,
                                       store=LATER if store else None)

    def answered(self, answer, token=None):
        """An answer of the last request, or of the one with this token."""
        code, body = answer
        token = token or self.connection.token.to_bytes(2, "big")
        max_age = self.connection.options[token].get(14)
        return {"code": code, "body": body, "max_age": None if max_age is None else int.from_bytes(max_age, "big")}

    def checked(self, message):
        assert message["msgType"] == "MSG" and base64.b64decode(message["payload"]) == payload_of(message["msgId"]), message
        return message["msgId"]


def payload_of(message_id):
    return f"payload of {message_id}".encode()


def main(lab_json, number):
    puppet = Puppet(lab_json, number)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            outcome = getattr(puppet, command.pop("do"))(**command)
        except Exception as error:
            outcome = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(outcome), flush=True)
    if puppet.connection:
        puppet.connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
