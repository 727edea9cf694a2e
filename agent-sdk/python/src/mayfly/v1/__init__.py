"""The messages of the issuer's API, as `proto/mayfly/v1/mayfly.proto` has them."""
