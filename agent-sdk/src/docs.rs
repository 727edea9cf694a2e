//! The pages of the manual that are about agents. The others are in the documentation of the issuer, `mayfly::docs`.

// In the file links name files; here the same labels are defined first, so that they lead to pages and items.
#[doc = "[run]: ../../../mayfly/run/index.html"]
#[doc = "[numbers]: ../../../mayfly/docs/numbers/index.html"]
#[doc = "[systems]: ../../../mayfly/docs/systems/index.html"]
#[doc = "[reasons]: crate::reason"]
#[doc = "[contract]: crate::docs::contract"]
#[doc = "[python]: crate::docs::python"]
#[doc = "[typescript]: crate::docs::typescript"]
#[doc = ""]
#[doc = include_str!("../docs/agents.md")]
pub mod agents {}

#[doc = "[reasons]: crate::reason"]
#[doc = ""]
#[doc = include_str!("../docs/contract.md")]
pub mod contract {}

#[doc = "[contract]: crate::docs::contract"]
#[doc = ""]
#[doc = include_str!("../docs/conformance.md")]
pub mod conformance {}

#[doc = "[contract]: crate::docs::contract"]
#[doc = ""]
#[doc = include_str!("../python/README.md")]
pub mod python {}

#[doc = "[contract]: crate::docs::contract"]
#[doc = "[spiffe]: crate::docs::spiffe"]
#[doc = ""]
#[doc = include_str!("../typescript/README.md")]
pub mod typescript {}

#[doc = include_str!("../typescript/spiffe/README.md")]
pub mod spiffe {}
