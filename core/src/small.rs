//! Decodes what most messages are: a few numbers and short texts. It checks while it reads, so that nothing has to be scanned
//! before, and gives up at everything else: then [`codec::decode`](crate::codec::decode) begins anew, and says what is wrong.
//!
//! What it accepts it hands to the type's `Deserialize` exactly as rmp-serde does.

use std::fmt::Display;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Visitor};
use serde::forward_to_deserialize_any;

/// Longer payloads are decoded the long way. No value in a shorter one can be nested too deep or have too many elements:
/// arrays and maps are read only where the count stands in the marker, 15 at most.
pub(crate) const BYTES_MAX: usize = 64;

/// Exactly one `T`, if `bytes` are small and plain. None says nothing of whether they are a `T`.
#[inline]
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    if bytes.len() > BYTES_MAX {
        return None;
    }
    let mut small = Small { rest: bytes };
    let value = T::deserialize(&mut small).ok()?;
    small.rest.is_empty().then_some(value)
}

struct Small<'de> {
    rest: &'de [u8],
}

/// It is to be decoded the long way.
#[derive(Debug)]
struct NotSmall;

impl Display for NotSmall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not small and plain")
    }
}

impl std::error::Error for NotSmall {}

impl de::Error for NotSmall {
    fn custom<T: Display>(_: T) -> Self {
        NotSmall
    }
}

impl<'de> Small<'de> {
    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], NotSmall> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(NotSmall)?;
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline]
    fn text<V: Visitor<'de>>(&mut self, bytes: usize, visitor: V) -> Result<V::Value, NotSmall> {
        let (text, rest) = self.rest.split_at_checked(bytes).ok_or(NotSmall)?;
        self.rest = rest;
        // What is no text at all, rmp-serde offers as bytes.
        visitor.visit_borrowed_str(std::str::from_utf8(text).map_err(|_| NotSmall)?)
    }

    /// Where a number is wanted: neither text nor items, whatever the visitor would make of these.
    #[inline]
    fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, NotSmall> {
        match self.rest {
            [0x80..=0xbf, ..] => Err(NotSmall),
            _ => self.any(visitor),
        }
    }

    #[inline]
    fn any<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, NotSmall> {
        let [marker] = self.fixed()?;
        match marker {
            0x00..=0x7f => visitor.visit_u8(marker),
            0xe0..=0xff => visitor.visit_i8(marker as i8),
            0xc0 => visitor.visit_unit(),
            0xc2 => visitor.visit_bool(false),
            0xc3 => visitor.visit_bool(true),
            0xca => visitor.visit_f32(f32::from_be_bytes(self.fixed()?)),
            0xcb => visitor.visit_f64(f64::from_be_bytes(self.fixed()?)),
            0xcc => visitor.visit_u8(u8::from_be_bytes(self.fixed()?)),
            0xcd => visitor.visit_u16(u16::from_be_bytes(self.fixed()?)),
            0xce => visitor.visit_u32(u32::from_be_bytes(self.fixed()?)),
            0xcf => visitor.visit_u64(u64::from_be_bytes(self.fixed()?)),
            0xd0 => visitor.visit_i8(i8::from_be_bytes(self.fixed()?)),
            0xd1 => visitor.visit_i16(i16::from_be_bytes(self.fixed()?)),
            0xd2 => visitor.visit_i32(i32::from_be_bytes(self.fixed()?)),
            0xd3 => visitor.visit_i64(i64::from_be_bytes(self.fixed()?)),
            0xa0..=0xbf => self.text(usize::from(marker & 0x1f), visitor),
            0x90..=0x9f => {
                let mut items = Items { small: self, left: marker & 0x0f };
                let value = visitor.visit_seq(&mut items)?;
                if items.left == 0 { Ok(value) } else { Err(NotSmall) }
            }
            0x80..=0x8f => {
                let mut items = Items { small: self, left: marker & 0x0f };
                let value = visitor.visit_map(&mut items)?;
                if items.left == 0 { Ok(value) } else { Err(NotSmall) }
            }
            _ => Err(NotSmall),
        }
    }
}

/// The items of an array, or the entries of a map.
struct Items<'a, 'de> {
    small: &'a mut Small<'de>,
    left: u8,
}

impl<'de> de::SeqAccess<'de> for Items<'_, 'de> {
    type Error = NotSmall;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, NotSmall> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.small).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.into())
    }
}

impl<'de> de::MapAccess<'de> for Items<'_, 'de> {
    type Error = NotSmall;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, NotSmall> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.small).map(Some)
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, NotSmall> {
        seed.deserialize(&mut *self.small)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.into())
    }
}

macro_rules! numbers {
    ($($name:ident)*) => {
        $(#[inline]
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotSmall> {
            self.number(visitor)
        })*
    };
}

impl<'de> de::Deserializer<'de> for &mut Small<'de> {
    type Error = NotSmall;

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotSmall> {
        self.any(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotSmall> {
        match self.rest {
            [0xc0, rest @ ..] => {
                self.rest = rest;
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, NotSmall> {
        // An extension of the format bears a name of its own.
        if name == rmp_serde::MSGPACK_EXT_STRUCT_NAME { Err(NotSmall) } else { visitor.visit_newtype_struct(self) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, NotSmall> {
        Err(NotSmall)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, _: V) -> Result<V::Value, NotSmall> {
        Err(NotSmall)
    }

    fn deserialize_i128<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NotSmall> {
        Err(NotSmall)
    }

    fn deserialize_u128<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NotSmall> {
        Err(NotSmall)
    }

    numbers! {
        deserialize_bool deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_f32 deserialize_f64
    }

    forward_to_deserialize_any! {
        char str string unit seq bytes byte_buf map struct identifier tuple tuple_struct ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::codec;

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Flat {
        by: i64,
        #[serde(default)]
        name: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        list: Vec<u16>,
        #[serde(default)]
        ratio: f32,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Wrapped {
        wide: Wide,
        pair: (i8, bool),
        #[serde(flatten)]
        rest: BTreeMap<String, u32>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Wide(u64);

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Choice {
        Nothing,
        One(u8),
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Unit;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(i32),
        Text(String),
        Flag(bool),
        Items(Vec<i64>),
        Absent(()),
    }

    fn long<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
        codec::decode_long(bytes).ok()
    }

    /// What the short way accepts, the long way accepts as the same.
    fn agree<T: DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> bool {
        let short = decode::<T>(bytes);
        if short.is_some() {
            assert_eq!(short, long::<T>(bytes), "{bytes:02x?}");
        }
        short.is_some()
    }

    fn goes_the_short_way<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
        let bytes = codec::encode(value).expect("plain data");
        assert_eq!(decode::<T>(&bytes).as_ref(), Some(value), "{bytes:02x?}");
        assert_eq!(long::<T>(&bytes).as_ref(), Some(value), "{bytes:02x?}");
    }

    #[test]
    fn plain_values_go_the_short_way() {
        for number in [0, 1, 127, 128, 255, 256, 65_535, 65_536, i64::MAX, -1, -32, -33, -128, -129, -32_769, i64::MIN]
        {
            goes_the_short_way(&number);
            goes_the_short_way(&Flat { by: number, ..Flat::default() });
        }
        goes_the_short_way(&Flat { by: 1, name: Some("é".to_owned()), list: vec![1, 2, 300], ratio: 0.5 });
        goes_the_short_way(&Wrapped {
            wide: Wide(u64::MAX),
            pair: (-5, true),
            rest: [("a".to_owned(), 1), ("b".to_owned(), 70_000)].into(),
        });
        goes_the_short_way(&(1.5_f64, 'x', "text".to_owned(), Some(Some(3_u8)), ()));
        goes_the_short_way(&Untagged::Items(vec![1, -2]));
    }

    #[test]
    fn what_is_not_small_and_plain_goes_the_long_way() {
        fn long_way<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
            let bytes = codec::encode(value).expect("plain data");
            assert_eq!(decode::<T>(&bytes), None);
            assert_eq!(codec::decode::<T>(&bytes).ok().as_ref(), Some(value));
        }
        long_way(&vec![1_u8, 2, 3]);
        long_way(&Choice::One(3));
        long_way(&Choice::Nothing);
        long_way(&Unit);
        long_way(&7_i128);
        long_way(&"x".repeat(BYTES_MAX));
        long_way(&vec![300_u16; 16]);
        assert_eq!(decode::<i64>(&[1, 2]), None, "trailing bytes");
        assert_eq!(decode::<(i64,)>(&[0x92, 1, 2]), None, "one too many");
        assert_eq!(decode::<i64>(&[]), None);
    }

    #[test]
    fn both_ways_agree_on_random_bytes() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as usize
        };
        let keys: [&[u8]; 6] = [b"\xa2by", b"\xa4name", b"\xa4list", b"\xa5ratio", b"\xa4wide", b"\xa4pair"];
        let wrapped = Wrapped { wide: Wide(7), pair: (-5, true), rest: [("a".to_owned(), 1)].into() };
        let wrapped = codec::encode(&wrapped).expect("plain data");
        let mut accepted = [0; 8];
        for round in 0..200_000 {
            if round % 8 == 0 {
                // What is nearly right.
                let mut bytes = wrapped.clone();
                let at = next() % bytes.len();
                bytes[at] = next() as u8;
                accepted[1] += u32::from(agree::<Wrapped>(&bytes));
                continue;
            }
            let mut bytes = vec![[0x80, 0x81, 0x82, 0x83, 0x90, 0x91, 0x92, next() as u8][next() % 8]];
            for _ in 0..next() % 7 {
                match next() % 3 {
                    0 => bytes.extend(keys[next() % keys.len()]),
                    1 => bytes.push(next() as u8),
                    _ => bytes.push(next() as u8 & 0x1f),
                }
            }
            let now = [
                agree::<Flat>(&bytes),
                agree::<Wrapped>(&bytes),
                agree::<i64>(&bytes),
                agree::<Vec<i32>>(&bytes),
                agree::<Untagged>(&bytes),
                agree::<Option<String>>(&bytes),
                agree::<BTreeMap<String, i8>>(&bytes),
                agree::<(u8, Wide)>(&bytes),
            ];
            accepted.iter_mut().zip(now).for_each(|(count, now)| *count += u32::from(now));
        }
        assert!(accepted.iter().all(|count| *count > 20), "{accepted:?}");
    }
}
