//! HTTP/1.1 as clients speak it: heads of requests read, answers written. Bodies are read by the
//! decoder that endpoints' answers have, too.

mod head;
mod reply;

pub(crate) use self::{
    head::{Asks, Head, Heads, Unread},
    reply::{Misfit, Reply, Sending},
};
