//! The pages one by one: each is made of a report that a command prints, too.

pub(super) mod drops;
pub(super) mod names;
pub(super) mod overview;
pub(super) mod routes;
pub(super) mod services;
pub(super) mod trace;
