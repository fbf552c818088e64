//! MessagePack bodies: named fields (safe between versions), bytes as bytes, checked before they are decoded.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::BytesMut;
use rmp_serde::config::BytesMode;
use serde::{Serialize, de, de::DeserializeOwned, ser};

use crate::limits::DEPTH_MAX;
use crate::prescan::{PrescanError, PrescanLimits, prescan};
use crate::{panic_text, small};

/// A value could not be written as MessagePack.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode: {0}")]
pub struct EncodeError(#[from] rmp_serde::encode::Error);

/// Bytes are not the MessagePack of the wanted type.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes break a rule of the format or a limit.
    #[error(transparent)]
    Malformed(#[from] PrescanError),
    /// Well-formed, but not this type.
    #[error("cannot decode: {0}")]
    Mismatch(#[from] rmp_serde::decode::Error),
}

/// Appends `value` to `out`.
///
/// # Errors
/// [`EncodeError`] if the type's `Serialize` fails or panics; `out` then holds a part of the value, and the caller truncates.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> Result<(), EncodeError> {
    write(value, Out(out))
}

fn write<T: Serialize + ?Sized>(value: &T, out: impl io::Write) -> Result<(), EncodeError> {
    let mut serializer = rmp_serde::Serializer::new(out).with_struct_map().with_bytes(BytesMode::ForceAll);
    // A user's `Serialize` may panic; that must not leave half a frame among those of others.
    catch_unwind(AssertUnwindSafe(|| value.serialize(&mut serializer)))
        .unwrap_or_else(|panic| Err(ser::Error::custom(panicked(&*panic))))?;
    Ok(())
}

/// Small writes, of constant length most of them, go straight into the buffer.
struct Out<'a>(&'a mut BytesMut);

impl io::Write for Out<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `value` as a vector of its own.
///
/// # Errors
/// [`EncodeError`] if the type's `Serialize` fails or panics.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut out = BytesMut::new();
    encode_into(value, &mut out)?;
    Ok(out.into())
}

/// `value` as a vector of its own; none if it takes more than `bytes_max`, which is found out before memory is taken for more.
///
/// # Errors
/// As for [`encode`].
pub fn encode_within<T: Serialize + ?Sized>(value: &T, bytes_max: usize) -> Result<Option<Vec<u8>>, EncodeError> {
    let mut within = Within { out: Vec::new(), bytes_max, is_over: false };
    match write(value, &mut within) {
        _ if within.is_over => Ok(None),
        Ok(()) => Ok(Some(within.out)),
        Err(error) => Err(error),
    }
}

/// Takes so many bytes and no more.
struct Within {
    out: Vec<u8>,
    bytes_max: usize,
    is_over: bool,
}

impl io::Write for Within {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_over |= bytes.len() > self.bytes_max - self.out.len();
        if self.is_over {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads exactly one `T` from `bytes`.
///
/// The bytes are scanned first (depth, lengths, nothing trailing), since serde recurses into what they claim; or they are so few
/// and plain that they can claim nothing. The type's `Deserialize` may be run twice.
/// # Errors
/// [`DecodeError::Malformed`] names the rule or limit that was broken, [`DecodeError::Mismatch`] what serde
/// found, or that the type's `Deserialize` panicked.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    // A user's `Deserialize` may panic; that must not cost everybody the connection.
    match catch_unwind(|| small::decode(bytes)) {
        Ok(Some(value)) => Ok(value),
        Ok(None) | Err(_) => decode_long(bytes),
    }
}

/// As [`decode`], for `bytes` of which it is known how many they may be: as many values as bytes are accepted, where [`decode`] takes
/// [`ELEMENTS_MAX`](crate::prescan::ELEMENTS_MAX). Times the size of the decoded type that is the memory that they may take.
///
/// # Errors
/// As for [`decode`].
pub fn decode_large<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode_scanned(bytes, &PrescanLimits { elements_max: u32::MAX, ..PrescanLimits::default() })
}

/// Reads what is anything else than a few numbers and short texts.
pub(crate) fn decode_long<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode_scanned(bytes, &PrescanLimits::default())
}

fn decode_scanned<T: DeserializeOwned>(bytes: &[u8], limits: &PrescanLimits) -> Result<T, DecodeError> {
    prescan(bytes, limits)?;
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(DEPTH_MAX + 1);
    let decoded = catch_unwind(AssertUnwindSafe(|| T::deserialize(&mut deserializer)))
        .unwrap_or_else(|panic| Err(de::Error::custom(panicked(&*panic))))?;
    Ok(decoded)
}

fn panicked(panic: &(dyn Any + Send)) -> String {
    format!("panicked: {}", panic_text(panic))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Increment {
        by: i64,
    }

    #[test]
    fn fields_travel_by_name() {
        let bytes = encode(&Increment { by: 5 }).expect("plain data");
        assert_eq!(bytes, b"\x81\xa2by\x05");
        assert_eq!(decode::<Increment>(&bytes).expect("own bytes"), Increment { by: 5 });
    }

    #[test]
    fn a_vector_of_bytes_travels_as_bytes() {
        let bytes = encode(&vec![1_u8, 2, 255]).expect("plain data");
        assert_eq!(bytes, b"\xc4\x03\x01\x02\xff");
        assert_eq!(decode::<Vec<u8>>(&bytes).expect("own bytes"), [1, 2, 255]);
    }

    #[test]
    fn no_more_is_written_than_may_be() {
        let value = "a".repeat(100);
        let bytes = encode(&value).expect("plain data");
        assert_eq!(encode_within(&value, bytes.len()).expect("plain data"), Some(bytes.clone()));
        assert_eq!(encode_within(&value, bytes.len() - 1).expect("plain data"), None);
        assert_eq!(encode_within(&value, 0).expect("plain data"), None);
        assert!(encode_within(&Clumsy, 100).is_err());
    }

    #[test]
    fn what_is_large_may_have_more_values() {
        let many = vec![0_u16; crate::prescan::ELEMENTS_MAX as usize + 1];
        let bytes = encode(&many).expect("plain data");
        assert!(matches!(
            decode::<Vec<u16>>(&bytes),
            Err(DecodeError::Malformed(PrescanError::TooManyElements { limit: crate::prescan::ELEMENTS_MAX }))
        ));
        assert_eq!(decode_large::<Vec<u16>>(&bytes).expect("own bytes"), many);
        assert!(decode_large::<Vec<u16>>(&bytes[..bytes.len() - 1]).is_err());
    }

    #[derive(Debug)]
    struct Clumsy;

    impl Serialize for Clumsy {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("dropped the pen")
        }
    }

    impl<'de> Deserialize<'de> for Clumsy {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            panic!("lost the glasses")
        }
    }

    #[test]
    fn a_panic_of_the_types_own_code_is_an_error() {
        let written = encode(&Clumsy).expect_err("it panics").to_string();
        assert!(written.contains("panicked: dropped the pen"), "{written}");
        let read = decode::<Clumsy>(b"\x05").expect_err("it panics").to_string();
        assert!(read.contains("panicked: lost the glasses"), "{read}");
    }

    #[test]
    fn one_byte_more_is_refused() {
        let mut bytes = encode(&Increment { by: 5 }).expect("plain data");
        bytes.push(0);
        assert!(matches!(
            decode::<Increment>(&bytes),
            Err(DecodeError::Malformed(PrescanError::TrailingBytes { extra: 1 }))
        ));
    }

    #[test]
    fn a_recursive_enum_cannot_exhaust_the_stack() {
        #[derive(Debug, Deserialize)]
        enum Tree {
            #[allow(dead_code)]
            Node(Box<Tree>),
        }
        let mut bytes = Vec::new();
        for _ in 0..20_000 {
            bytes.extend_from_slice(b"\x81\xa4Node");
        }
        bytes.push(0xc0);
        assert!(matches!(
            decode::<Tree>(&bytes),
            Err(DecodeError::Malformed(PrescanError::TooDeep { limit: DEPTH_MAX, .. }))
        ));
    }
}
