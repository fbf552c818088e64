//! `docs/protocol.md` says what the code does: a request of the conversation of joining.

#[path = "../../core/tests/page/mod.rs"]
mod page;

use mobula_core::{NodeUid, codec};
use mobula_identity::Request;
use page::{Page, assert_same};

#[test]
fn the_request_to_come_back_is_what_the_code_writes_and_reads() {
    let examples = Page::read().examples("join");
    let page = &examples.iter().find(|example| example.value == "return").expect("it is on the page").bytes;
    let request = Request::Return { uid: NodeUid(0x0123_4567_89ab_cdef), csr: vec![0x30, 0x82] };
    let body = codec::encode(&request).expect("plain data");
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    assert_same("return", page, &[&length[..], &body].concat());
    assert_eq!(Request::decode(&page[4..]).expect("as the page says"), request);
}
