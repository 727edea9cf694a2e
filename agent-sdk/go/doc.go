// Package mayfly is the identity of an AI agent in a Go program: a certificate that follows every rotation, tokens, sub-agents, and
// services that refuse what was revoked.
//
//	me, err := mayfly.Current(ctx)                                        // under `mayfly run`
//	token, err := me.Token(ctx, "https://search.example", "search:read")  // cached until half of its life
//	child, err := me.Spawn(ctx, "worker", mayfly.Asked{Scopes: []string{"search:read"}})
//
// An [Identity] is a go-spiffe source of certificates and bundles: it goes wherever one is taken. A [Guard] verifies callers.
// Every error that says something of its own is an [*Error] with a stable code, and one of the kinds, such as [ErrRevoked].
// What this package does when (renewals, retries, what is final) is agent-sdk/docs/contract.md, which all packages follow.
package mayfly
