"""An agent in Python that knows nothing of Mayfly: it uses the stock `spiffe` package (pip install spiffe).

    mayfly run --class researcher --user-token demo.jwt -- python agent.py

`mayfly run` sets SPIFFE_ENDPOINT_SOCKET, where `spiffe` looks. Keep the sources open: they follow every rotation.
"""
from spiffe import JwtSource, X509Source

with X509Source() as x509, JwtSource() as jwt:
    svid = x509.get_x509_context().default_svid
    print("we are", svid.spiffe_id)
    token = jwt.fetch_svid(audience={"https://search.example"})
    print("a token for", *token.audience)
