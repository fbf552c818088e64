//! Ids of what the head keeps, and its sense of time.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::BadFlag;
use crate::{NodeUid, readable};

/// One life of a worker process. It is a node to the actors in it, so it is a node's uid.
pub type WorkerId = NodeUid;

/// A job. The head counts them, and gives no number twice. In JSON it is `job-17`, as everywhere.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct JobId(pub u64);

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        readable::serialize(self.0, self, serializer)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        readable::deserialize(deserializer, |text| text.parse().ok().map(|JobId(number)| number)).map(JobId)
    }
}

impl fmt::Display for JobId {
    /// `job-17`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job-{}", self.0)
    }
}

impl FromStr for JobId {
    type Err = BadFlag;

    /// Reads `job-17`, or `17`.
    fn from_str(text: &str) -> Result<Self, BadFlag> {
        let number = text.strip_prefix("job-").unwrap_or(text);
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|_| is_number);
        number.map(JobId).ok_or_else(|| BadFlag::new("JOB", text, "it is no job", "ids such as job-17"))
    }
}

/// A lease on resources of a node. Whoever asks draws the number, and uses it for nothing else: so asking again is asking for
/// the same.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct LeaseId {
    /// Whose it is.
    pub job: JobId,
    /// Which, within the job.
    #[serde(with = "number")]
    pub number: u64,
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/lease-{:x}", self.job, self.number)
    }
}

/// A placement group. Numbered as leases are, apart from them.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct GroupId {
    /// Whose it is.
    pub job: JobId,
    /// Which, within the job.
    #[serde(with = "number")]
    pub number: u64,
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/group-{:x}", self.job, self.number)
    }
}

/// A number that was drawn: 16 hexadecimal digits in JSON.
mod number {
    use serde::{Deserializer, Serializer};

    use crate::readable;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        readable::serialize(*number, &format_args!("{number:016x}"), to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        readable::deserialize(from, readable::from_hex)
    }
}

/// The number of a state. A later one is larger, also after a restart of the head, which begins a larger term.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Revision {
    /// The head's term: the token that fences its writes.
    pub term: u64,
    /// Within the term.
    pub number: u64,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.number)
    }
}

/// A moment at the head, which its nodes repeat and do not read.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct HeadTime {
    /// The head's term.
    pub term: u64,
    /// Since the head's start.
    pub at: Duration,
}

/// Seconds since 1970, for people and certificates. Nothing that has to be safe is decided by it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// What the system's clock says. For programs; decisions take it as an argument.
    pub fn now() -> Self {
        UnixTime(SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()))
    }

    /// So much later, or the end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        UnixTime(self.0.saturating_add(duration.as_secs()))
    }

    /// So much earlier, or 1970.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        UnixTime(self.0.saturating_sub(duration.as_secs()))
    }

    /// The same as the system says it; 1970 for a number that no clock shows.
    pub fn system(self) -> SystemTime {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.0)).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// A program, by the BLAKE3 hash of its file and the file's size.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Executable {
    /// The hash.
    pub hash: ExecutableHash,
    /// Bytes of the file.
    pub bytes: u64,
}

/// A BLAKE3 hash; 32 bytes on the wire, hexadecimal for people.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ExecutableHash(pub [u8; 32]);

impl fmt::Display for ExecutableHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for ExecutableHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for ExecutableHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const WRONG: &str = "a hash has 32 bytes";
        if !deserializer.is_human_readable() {
            let bytes = Vec::<u8>::deserialize(deserializer)?;
            return bytes.try_into().map(ExecutableHash).map_err(|_| D::Error::custom(WRONG));
        }
        let text = String::deserialize(deserializer)?;
        let mut hash = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(D::Error::custom(WRONG));
        }
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(D::Error::custom)?;
        }
        Ok(ExecutableHash(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_read_as_it_is_written() {
        assert_eq!("job-17".parse(), Ok(JobId(17)));
        assert_eq!("17".parse(), Ok(JobId(17)));
        for text in ["", "job-", "job-x", "job--1", "job-+1", "17 ", "99999999999999999999"] {
            text.parse::<JobId>().expect_err(text);
        }
    }

    /// A format that people read, with texts alone.
    fn read_back<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, serde::de::value::Error> {
        T::deserialize(serde::de::value::BorrowedStrDeserializer::new(text))
    }

    #[test]
    fn ids_are_texts_where_people_read_them_and_numbers_on_the_wire() {
        assert_eq!(read_back("job-17"), Ok(JobId(17)));
        assert_eq!(read_back("fedcba9876543210"), Ok(NodeUid(0xfedc_ba98_7654_3210)));
        for text in ["17", "fedcba987654321", "+edcba9876543210", "fedcba987654321g"] {
            read_back::<NodeUid>(text).expect_err(text);
        }
        let lease = LeaseId { job: JobId(7), number: u64::MAX };
        let bytes = crate::codec::encode(&lease).expect("plain data");
        assert_eq!(bytes, b"\x82\xa3job\x07\xa6number\xcf\xff\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!(crate::codec::decode::<LeaseId>(&bytes).expect("own bytes"), lease);
    }

    #[test]
    fn a_later_term_is_later_whatever_its_number() {
        assert!(Revision { term: 2, number: 1 } > Revision { term: 1, number: 99 });
    }

    #[test]
    fn a_hash_is_32_bytes_on_the_wire() {
        let hash = ExecutableHash([0xab; 32]);
        let bytes = crate::codec::encode(&hash).expect("plain data");
        assert_eq!((bytes.len(), &bytes[..3]), (34, &b"\xc4\x20\xab"[..]));
        assert_eq!(crate::codec::decode::<ExecutableHash>(&bytes).expect("own bytes"), hash);
        crate::codec::decode::<ExecutableHash>(b"\xc4\x01\xab").expect_err("too short");
        assert!(hash.to_string().starts_with("abab") && hash.to_string().len() == 64);
    }
}
