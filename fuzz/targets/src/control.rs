//! Requests to the head, from whoever holds a certificate.

use mobula_control::Request;
use mobula_control::private::read_requests;
use mobula_core::{codec, limits};

/// Whatever is read as requests lies within the limit, says what it needs, and is the same when it is written and read again.
pub(crate) fn requests(data: &[u8]) {
    let mut read = 0;
    let ended = read_requests(data, |request| {
        read += 1;
        let _ = (request.needs(), request.what());
        let written = codec::encode(&request).expect("it was read");
        let again: Request = codec::decode(&written).expect("it was written");
        assert_eq!(codec::encode(&again).expect("it was read"), written);
    });
    // Each has a length and a name.
    assert!(read * 5 <= data.len(), "{read} requests in {} bytes", data.len());
    let announced = data.first_chunk().map(|length| u32::from_be_bytes(*length) as usize);
    if announced.is_some_and(|length| length > limits::CONTROL_MESSAGE_BYTES_MAX) {
        assert!(read == 0 && ended.is_err(), "a message beyond the limit was read");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_has_requests_and_what_is_none() {
        let whats = |data: &[u8]| {
            let mut whats = Vec::new();
            let ended = read_requests(data, |request| whats.push(request.what()));
            (whats, ended.is_ok())
        };
        let many = whats(include_bytes!("../../corpus/control/many"));
        let wanted = ["look at the cluster", "create tokens", "drain nodes", "read logs", "be a node", "be a node"];
        assert_eq!(many, (wanted.to_vec(), true));
        let revoke = whats(include_bytes!("../../corpus/control/revoke-credential"));
        assert_eq!(revoke, (vec!["revoke credentials"], true));
        let launch = whats(include_bytes!("../../corpus/control/get-launch"));
        assert_eq!(launch, (vec!["be a node"], true));
        assert_eq!(whats(include_bytes!("../../corpus/control/cut")), (vec!["stop jobs"], false));
        assert_eq!(whats(include_bytes!("../../corpus/control/too-long")), (vec![], false));
        assert_eq!(whats(include_bytes!("../../corpus/control/unknown")), (vec![], false));
    }
}
