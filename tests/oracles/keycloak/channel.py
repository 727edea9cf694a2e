"""The authentication channel of Keycloak: it is told whom to ask, shows the message on the device of that person, and says what they answered."""
import json, ssl, sys, threading, time, urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

port, callback, roots = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def answer(bearer):
    time.sleep(3)
    said = open("answer").read().strip()
    request = urllib.request.Request(callback, json.dumps({"status": said}).encode(), {"Authorization": bearer, "Content-Type": "application/json"})
    urllib.request.urlopen(request, context=ssl.create_default_context(cafile=roots))


class Channel(BaseHTTPRequestHandler):
    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open("phone.log", "a") as log:
            log.write(json.dumps(told) + "\n")
        self.send_response(201)
        self.end_headers()
        threading.Thread(target=answer, args=(self.headers["Authorization"],)).start()

    def log_message(self, *_):
        pass


HTTPServer(("127.0.0.1", port), Channel).serve_forever()
