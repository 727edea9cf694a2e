"""An identity from a SPIFFE Workload API: that of `mayfly run`, of a SPIRE agent, or of any other implementation."""
