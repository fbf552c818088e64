//! What one costs who connects over TLS and proves nothing. A program of its own, for its allocator counts.

#[allow(dead_code)]
mod common;

use std::alloc::System;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

use common::*;
use mobula_transport::tcp;
use mobula_transport::tls::pki_types::ServerName;
use mobula_transport::tls::{NODE_PROTOCOL, node_name, provider};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const STRANGERS: usize = 100;
/// `docs/semantics.md` promises it.
const HEAP_BYTES_MAX: usize = 64 * 1024;

fn heap_bytes() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// The first message of an honest client.
fn client_hello() -> Vec<u8> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("known")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![NODE_PROTOCOL.to_vec()];
    let name = ServerName::try_from(node_name(Port::UID)).expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).expect("it is a vector");
    hello
}

/// Most of a hello of 60,000 bytes, as far as it is read.
fn endless_hello() -> Vec<u8> {
    let mut records = Vec::new();
    let mut body = vec![1, 0, 0xea, 0x60];
    body.resize(15_000, 0x5a);
    for piece in body.chunks(1_000) {
        records.extend_from_slice(&[22, 3, 1]);
        records.extend_from_slice(&(piece.len() as u16).to_be_bytes());
        records.extend_from_slice(piece);
    }
    records
}

#[tokio::test]
async fn one_who_proves_nothing_costs_little() {
    let port = Arc::new(TlsPort::open());
    for first in [client_hello(), endless_hello(), vec![22]] {
        // What is made once is made before.
        let warm = visit(&port, &first, 1).await;
        drop(warm);
        let before = heap_bytes();
        let strangers = visit(&port, &first, STRANGERS).await;
        let each = heap_bytes().saturating_sub(before) / STRANGERS;
        assert!(each <= HEAP_BYTES_MAX, "{each} bytes of heap for each of {STRANGERS} strangers");
        assert!(each > 100, "{each} bytes: nobody came in");
        drop(strangers);
    }
}

/// So many connections on which `first` was sent, and their handshakes, which wait for more.
async fn visit(port: &Arc<TlsPort>, first: &[u8], count: usize) -> Vec<(TcpStream, tokio::task::JoinSet<()>)> {
    let mut visitors = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(port.address).expect("the port is open");
        stream.write_all(first).expect("room for it");
        let (accepted, address) = within(tcp::accept_next(&port.listener)).await;
        let port = Arc::clone(port);
        let mut handshake = tokio::task::JoinSet::new();
        handshake.spawn(async move {
            let _ = port.endpoint.accept(accepted, address).await;
        });
        // On this runtime of one thread the handshake runs whenever we wait; it reads all that is there.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(handshake.try_join_next().is_none(), "the handshake waits for more");
        visitors.push((stream, handshake));
    }
    visitors
}
