#!/bin/sh
# OpenBao (or Vault, with VAULT=vault) takes agents by their tokens, with nothing but the issuer's URL, and by their certificates. A policy opens
# what belongs to the user for whom an agent acts. Run it once, with BAO_ADDR and BAO_TOKEN set, beside bundle.pem (mayfly bundle --format pem);
# MAYFLY_CA names the CA of the issuer's HTTPS listener if that is not a public one. It needs jq.
#
# Neither reads the feed of revocations. A token that an agent holds logs in until it expires: give the audience a short `lifetime`. By
# certificate a revoked agent is refused as soon as OpenBao has the lists of
#   mayfly guard --as DIR --listen unix:/run/mayfly/guard.sock --crl lists --reload ./openbao-reload
set -eu
bao=${VAULT:-bao}
binding=/urn:oid:1.3.6.1.4.1.32473.1

$bao auth enable jwt
$bao write auth/jwt/config oidc_discovery_url=https://mayfly.example.org bound_issuer=https://mayfly.example.org jwt_supported_algs=ES256 \
  ${MAYFLY_CA:+oidc_discovery_ca_pem=@$MAYFLY_CA}
accessor=$($bao auth list -format=json | jq -r '."jwt/".accessor')
$bao policy write user-of-token - <<HCL
path "secret/data/users/{{identity.entity.aliases.$accessor.metadata.user}}/*" { capabilities = ["read"] }
HCL
# Without the default policy a session cannot renew itself, and without the leeways an expired token is refused at once.
$bao write auth/jwt/role/agents - <<JSON
{ "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["https://search.example"], "bound_claims_type": "glob",
  "bound_claims": { "sub": "spiffe://prod.example.org/agent/researcher/*", "$binding/user/sub": "*" },
  "claim_mappings": { "$binding/user/sub": "user" }, "clock_skew_leeway": -1, "expiration_leeway": -1,
  "token_policies": ["user-of-token"], "token_no_default_policy": true, "token_ttl": "1m", "token_max_ttl": "1h" }
JSON

# By certificate: the class has subject = "CN={user.sub},OU={class}", so that the alias is the user.
$bao auth enable cert
accessor=$($bao auth list -format=json | jq -r '."cert/".accessor')
$bao policy write user-of-certificate - <<HCL
path "secret/data/users/{{identity.entity.aliases.$accessor.name}}/*" { capabilities = ["read"] }
HCL
$bao write auth/cert/certs/agents certificate=@bundle.pem allowed_uri_sans='spiffe://prod.example.org/agent/researcher/*' \
  token_policies=user-of-certificate token_ttl=1m token_max_ttl=1h

# One list for each authority that signs.
cat >openbao-reload <<'SH'
#!/bin/sh
for list in "$(dirname "$MAYFLY_CRL")"/*.pem; do
  [ "$list" = "$MAYFLY_CRL" ] && continue
  jq -Rs '{ crl: . }' "$list" | curl -sS --fail -H "X-Vault-Token: $BAO_TOKEN" --data @- "$BAO_ADDR/v1/auth/cert/crls/$(basename "$list" .pem)" || exit 1
done
SH
chmod +x openbao-reload
