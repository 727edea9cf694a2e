//! Explains why something is allowed or denied, who may do what, and what a change would do. Nothing is recorded, signed or
//! charged. All answers come from `judge`, on the present state.

pub mod explain;
pub mod governance;
pub mod losses;
pub mod replay;
pub mod survey;
pub mod what_if;
pub mod who_can;
