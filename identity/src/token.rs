//! Tokens to join with: `mbl1.<sha256 of the authority's key>.<token id>.<Ed25519 seed>.<crc>`, all in lower-case hexadecimal.
//!
//! The head keeps the id and the public key. The seed never travels: who joins signs with it what fits one connection alone.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use mobula_core::readable;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a token as text; the rest of what is given is not looked at.
pub(crate) const TEXT_BYTES: usize = 5 + 64 + 1 + 16 + 1 + 64 + 1 + 8;

/// Names a token, and is no secret.
/// In JSON it is 16 hexadecimal digits, as everywhere.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TokenId(pub u64);

impl Serialize for TokenId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        readable::serialize(self.0, self, serializer)
    }
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        readable::deserialize(deserializer, readable::from_hex).map(TokenId)
    }
}

impl std::fmt::Display for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for TokenId {
    type Err = TokenError;

    /// Reads 16 hexadecimal digits, as they are shown.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let id = if text.len() == 16 { from_hex(text) } else { None };
        Ok(TokenId(u64::from_be_bytes(id.ok_or(TokenError::Digits { part: "token id" })?)))
    }
}

/// What lets its holder join. It is shown by [`expose`](Self::expose) alone, and overwritten when it is dropped.
///
/// It is not printed by accident:
///
/// ```compile_fail,E0277
/// fn log(token: &mobula_identity::Token) {
///     println!("{token:?}");
/// }
/// ```
/// ```compile_fail,E0277
/// fn log(token: &mobula_identity::Token) {
///     println!("{token}");
/// }
/// ```
pub struct Token {
    pin: [u8; 32],
    id: TokenId,
    seed: Zeroizing<[u8; 32]>,
}

/// A text is not a token. It is not repeated here, for it may be one with a slip.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It does not look like a token at all.
    #[error("not a token: one begins with mbl1. and has {TEXT_BYTES} characters")]
    Form,
    /// A part is not lower-case hexadecimal.
    #[error("not a token: its {part} is not lower-case hexadecimal")]
    Digits {
        /// Which part.
        part: &'static str,
    },
    /// Something was lost or changed on the way.
    #[error("the token was damaged on its way: its checksum does not fit; copy it again")]
    Checksum,
}

impl Token {
    /// A token of the authority whose key has the hash `pin`. `id` and `seed` are random.
    pub fn new(pin: [u8; 32], id: TokenId, seed: Zeroizing<[u8; 32]>) -> Self {
        Token { pin, id, seed }
    }

    /// Reads a token. Blanks and line ends around it are no part of it.
    ///
    /// # Errors
    /// [`TokenError`], which shows nothing of the text.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() != TEXT_BYTES || !text.is_ascii() {
            return Err(TokenError::Form);
        }
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(TokenError::Form);
        if next()? != "mbl1" {
            return Err(TokenError::Form);
        }
        let (pin, id, seed, crc) = (next()?, next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(TokenError::Form);
        }
        let pin = from_hex(pin).ok_or(TokenError::Digits { part: "first part" })?;
        let id = from_hex(id).ok_or(TokenError::Digits { part: "token id" })?;
        let mut seed: [u8; 32] = from_hex(seed).ok_or(TokenError::Digits { part: "third part" })?;
        let token = Token { pin, id: TokenId(u64::from_be_bytes(id)), seed: Zeroizing::new(seed) };
        seed.zeroize();
        let crc: [u8; 4] = from_hex(crc).ok_or(TokenError::Digits { part: "checksum" })?;
        let body = &text.as_bytes()[..TEXT_BYTES - 9];
        if u32::from_be_bytes(crc) == crc32(body) { Ok(token) } else { Err(TokenError::Checksum) }
    }

    /// The text, for whoever is to join. It belongs into a file of mode 0600, not into arguments or the environment.
    pub fn expose(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES));
        text.push_str("mbl1.");
        to_hex(&self.pin, &mut text);
        text.push('.');
        to_hex(&self.id.0.to_be_bytes(), &mut text);
        text.push('.');
        to_hex(&*self.seed, &mut text);
        let crc = crc32(text.as_bytes());
        text.push('.');
        to_hex(&crc.to_be_bytes(), &mut text);
        text
    }

    /// Which token it is.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// SHA-256 of the key of the authority that it trusts.
    pub fn pin(&self) -> [u8; 32] {
        self.pin
    }

    /// What the head keeps of it.
    pub fn public_key(&self) -> Option<[u8; 32]> {
        self.pair()?.public_key().as_ref().try_into().ok()
    }

    /// Ed25519 by the seed over `statement`; see [`Request::statement`](crate::Request::statement).
    pub fn sign(&self, statement: &[u8]) -> Option<[u8; 64]> {
        self.pair()?.sign(statement).as_ref().try_into().ok()
    }

    fn pair(&self) -> Option<Ed25519KeyPair> {
        // Any 32 bytes are a seed.
        Ed25519KeyPair::from_seed_unchecked(&*self.seed).ok()
    }
}

fn to_hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// CRC-32 as in IEEE 802.3. It finds slips, not attackers.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::new([0xab; 32], TokenId(0x0123_4567_89ab_cdef), Zeroizing::new(std::array::from_fn(|at| at as u8)))
    }

    #[test]
    fn the_text_of_a_token_is_as_the_page_says() {
        let text = token().expose();
        let expected = format!(
            "mbl1.{}.0123456789abcdef.000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f.",
            "ab".repeat(32)
        );
        assert_eq!(&text[..text.len() - 8], expected);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926, "the checksum's own test value");
        let read = Token::parse(&format!(" {}\n", *text)).map_err(|error| error.to_string());
        let read = read.expect("it was just written");
        assert_eq!((read.pin(), read.id(), *read.seed), ([0xab; 32], token().id(), *token().seed));
    }

    #[test]
    fn one_wrong_character_anywhere_is_found() {
        let text = token().expose();
        for at in 0..text.len() {
            for wrong in ["0", "f", "A", ".", " ", "x", "\u{e4}"] {
                if text[at..].starts_with(wrong) {
                    continue;
                }
                let changed = format!("{}{wrong}{}", &text[..at], &text[at + 1..]);
                assert!(Token::parse(&changed).is_err(), "{wrong} at {at}");
            }
            assert!(Token::parse(&text[..at]).is_err(), "cut at {at}");
        }
        for other in ["", ".", "mbl1", "mbl1.....", "mbl2.", "\u{e4}"] {
            assert_eq!(Token::parse(other).err(), Some(TokenError::Form), "{other}");
        }
        let mut swapped = text.to_string();
        swapped.replace_range(90..91, "\u{0}");
        assert_eq!(Token::parse(&swapped).err(), Some(TokenError::Digits { part: "third part" }));
    }

    #[test]
    fn errors_show_nothing_of_the_text() {
        let text = token().expose().replace("1e1f.", "1e1e.");
        let error = Token::parse(&text).err().expect("damaged").to_string();
        assert!(!error.contains("0001") && !error.contains("abab"), "{error}");
    }
}
