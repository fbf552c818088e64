//! What is handed in to be run: refused at once, with what it is and what is needed, where it cannot run.

use std::fs;

use crate::common::Cluster;

/// The header of a program for another processor than this one, linked to musl.
fn for_another_machine() -> (Vec<u8>, &'static str) {
    let (machine, name) = if cfg!(target_arch = "aarch64") { (62_u8, "x86_64-linux") } else { (183, "aarch64-linux") };
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(64, 0);
    (bytes[16], bytes[18]) = (2, machine);
    (bytes, name)
}

#[test]
fn what_cannot_run_on_any_node_is_refused_with_what_was_found_and_what_is_needed() {
    let cluster = Cluster::of(1);
    let (bytes, name) = for_another_machine();
    let own = format!("{}-linux-", std::env::consts::ARCH);
    let submit = |file: &str, bytes: &[u8]| {
        let path = cluster.path(file);
        fs::write(&path, bytes).expect("room");
        cluster.run(&["job", "submit", path.to_str().expect("text")])
    };
    submit("another", &bytes).fails(1, &["the program is built for", name, "no node can start that", "found", &own]);
    submit("cut-off", &bytes[..40]).fails(1, &["cut-off cannot run", "damaged or cut off"]);
    submit("text", b"hello")
        .fails(1, &["text cannot run", "it is no program", "an ELF program for Linux, or a script"]);
    submit("empty", b"").fails(1, &["empty cannot run", "it is empty"]);
    submit("windows", b"MZ\x90\x00").fails(1, &["a program for Windows"]);
    assert_eq!(cluster.view()["jobs"].as_array().map(Vec::len), Some(0), "no job has begun");
    // A script says itself what runs it.
    let script = submit("script", b"#!/bin/sh\necho it runs\n");
    assert!(script.stdout.contains("it runs"), "{script:?}");
}
