//! The least a UDP DNS server can cost: receive a batch, stamp the same address under each
//! question, send the batch.
//!
//! `floor ADDRESS` answers until it is killed. `make bench-dns` measures the agent beside it.
#![expect(clippy::print_stdout, reason = "a program that says where it listens")]

use std::{env, error::Error, net::UdpSocket, os::fd::AsFd};

use fairlead_dns::sys::{Inbox, Outbox};

/// An A record of the name in the question.
const ANSWER: [u8; 16] = [0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 96, 0, 1];
/// Header bytes 2..12 of a reply with one question and one answer.
const HEADER: [u8; 10] = [0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0];

fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).ok_or("usage: floor ADDRESS")?;
    let socket = UdpSocket::bind(address)?;
    println!("listening on {}", socket.local_addr()?);
    let mut inbox = Inbox::new();
    let mut outbox = Outbox::new();
    loop {
        inbox.receive(socket.as_fd())?;
        for datagram in inbox.datagrams() {
            let Some(route) = datagram.route else { continue };
            let question = datagram.bytes.len();
            let total = question + ANSWER.len();
            let Some(reply) = outbox.space().get_mut(..total).filter(|_| question >= 12) else {
                continue;
            };
            let (head, tail) = reply.split_at_mut(question);
            head.copy_from_slice(datagram.bytes);
            if let Some(header) = head.get_mut(2..12) {
                header.copy_from_slice(&HEADER);
            }
            tail.copy_from_slice(&ANSWER);
            outbox.push(total, route);
        }
        outbox.send(socket.as_fd());
    }
}
