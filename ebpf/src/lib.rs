//! The part of the data path that is shared by the kernel programs, the agent and the tests.
//!
//! `no_std`, no unsafe, no I/O: everything here runs in host tests as it runs in the kernel.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod connection;
pub mod dialled;
pub mod packet;
pub mod sctp;
pub mod select;
