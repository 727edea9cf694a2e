"""The token endpoint: an access token for an agent that proves itself by a JWT-SVID (RFC 6749 4.4, RFC 7523 2.2)."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
from collections.abc import Iterable
from urllib.parse import urlencode, urlsplit

from .errors import Denied, Expired, MayflyError, Revoked, Unavailable, Unusable
from .pace import PATIENCE
from .reasons import EXPIRED, FINAL

#: Longest answer, in bytes.
_LONGEST = 64 * 1024
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"


def endpoint(issuer: str, address: str | None = None) -> str:
    """The token endpoint of an issuer by its URL, or the same at its own address, `host:port`. Raises `Unusable`."""
    url = urlsplit(issuer)
    if url.scheme != "https" or not url.netloc or url.query or url.fragment:
        raise Unusable("answer", "the token names no issuer by an https URL: the issuer has no token endpoint")
    return f"https://{address or url.netloc}{url.path}/oauth/token"


def ask(url: str, assertion: str, audience: str, scopes: Iterable[str], context: ssl.SSLContext | None = None) -> tuple[str, float]:
    """Obtains an access token. Returns it with its expiry in unix seconds.

    The server is verified by `context`, or else by the roots of the system. Raises `Denied`, `Unavailable`, `Unusable`, `Revoked`.
    """
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": _ASSERTION,
        "client_assertion": assertion,
        "audience": audience,
        "scope": " ".join(scopes),
    }
    at, began = urlsplit(url), time.time()
    connection = http.client.HTTPSConnection(at.netloc, timeout=PATIENCE, context=context or ssl.create_default_context())
    try:
        connection.request("POST", at.path, urlencode(form), {"content-type": "application/x-www-form-urlencoded"})
        response = connection.getresponse()
        status, retry, body = response.status, response.getheader("retry-after"), response.read(_LONGEST)
    except ssl.SSLCertVerificationError as e:
        why = getattr(e, "verify_message", None) or e
        hint = f"`{at.netloc}` is not the issuer: {why}; set MAYFLY_SERVER=host:port to ask it at its own address"
        raise Unusable("untrusted", hint) from None
    except (OSError, http.client.HTTPException) as e:
        raise Unavailable("unavailable", f"the token endpoint at `{at.netloc}` does not answer: {e!r}"[:300]) from None
    finally:
        connection.close()
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    if status != 200:
        raise _refused(status, str(answer.get("error", status)), str(answer.get("error_description", "")), retry)
    text, kind, life = answer.get("access_token"), answer.get("token_type"), answer.get("expires_in")
    if not isinstance(text, str) or not text or str(kind).lower() != "bearer" or not isinstance(life, (int, float)):
        raise Unusable("answer", "the answer of the token endpoint has no bearer token")
    return text, began + life


def _refused(status: int, error: str, description: str, retry: str | None) -> MayflyError:
    """What a refusal means. Its description begins with a reason code, where the issuer has one."""
    found = re.fullmatch(r"([A-Z][A-Z0-9_]*): (.*)", description)
    code, hint = (found[1], found[2]) if found else (error, description or "the token endpoint refuses this")
    retry_after = float(retry) if retry and re.fullmatch(r"[0-9]{1,6}", retry) else None
    if status == 429:
        return Denied(code, hint, 1.0 if retry_after is None else retry_after)
    if status >= 500:
        return Unavailable(code if found else "unavailable", f"the token endpoint cannot answer now: {hint}", retry_after)
    # CREDENTIAL_EXPIRED speaks of the assertion, which a clock that is behind can make old before its time.
    if status == 401 and code in FINAL and code != "CREDENTIAL_EXPIRED":
        return (Expired if code in EXPIRED else Revoked)(code, hint)
    return Denied(code, hint)
