//! Why something is allowed or denied, who may do what, and what a change would do. Nothing is recorded, signed or charged: everything is
//! judged by the room that judges, on the state as it is.

pub mod explain;
pub mod governance;
pub mod replay;
pub mod survey;
pub mod what_if;
pub mod who_can;
