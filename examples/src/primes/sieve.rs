//! A segmented sieve over the numbers coprime to 30.
//!
//! Such a number is 30 * index + residue with one of eight residues. Each residue is a sieve of its own, one bit per
//! index, because there the multiples of a prime p lie exactly p bits apart: one short loop crosses them off. The bits
//! are worked through in segments that stay in the first-level cache.
use std::ops::Range;
use std::sync::LazyLock;

use super::kernel::Part;

/// One past the largest number that may be asked for: 10^12 is in, and base primes stay below 10^6.
pub const END_MAX: u64 = 1_000_000_000_001;

/// Counts and adds up the primes in `range`.
pub(super) fn sieve(range: Range<u64>) -> Part {
    let mut part = Part::default();
    for prime in TABLE_PRIMES.into_iter().filter(|prime| range.contains(prime)) {
        part.add_prime(prime);
    }
    let range = range.start.max(WHEEL)..range.end;
    if range.is_empty() {
        return part;
    }
    let base_primes = base_primes((range.end - 1).isqrt() as u32);
    let mut segment: Segment = [0; SEGMENT_WORDS];
    for residue in RESIDUES {
        part += Class::new(residue, &range).sieve(&base_primes, &mut segment);
    }
    part
}

const WHEEL: u64 = 30;
const RESIDUES: [u64; 8] = [1, 7, 11, 13, 17, 19, 23, 29];

/// Never found by the sieve itself: the wheel skips the first three, the patterns cross off the others.
const TABLE_PRIMES: [u64; 10] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29];

const BASE_PRIME_MIN: usize = 31;

/// 32 KiB, a usual first-level cache; half of that is as fast below 10^9 and a third slower at 10^10.
const SEGMENT_WORDS: usize = 4096;
type Segment = [u64; SEGMENT_WORDS];
const SEGMENT_BITS: usize = SEGMENT_WORDS * WORD_BITS;
const WORD_BITS: usize = u64::BITS as usize;

/// The numbers 30 * index + residue for one residue and a range of indexes.
struct Class {
    residue: u64,
    start: u64,
    end: u64,
}

impl Class {
    fn new(residue: u64, range: &Range<u64>) -> Class {
        let index_from = |number: u64| number.saturating_sub(residue).div_ceil(WHEEL);
        Class { residue, start: index_from(range.start), end: index_from(range.end) }
    }

    fn sieve(&self, base_primes: &[u32], segment: &mut Segment) -> Part {
        let mut part = Part::default();
        let patterns = PATTERNS.each_ref().map(|pattern| (&*pattern.words, pattern.phase(self.number(self.start))));
        let mut strides: Vec<Stride> = Vec::with_capacity(base_primes.len());
        let mut waiting = base_primes.iter().copied().peekable();

        let mut start = self.start;
        while start < self.end {
            let bits = (self.end - start).min(SEGMENT_BITS as u64) as usize;
            let word_offset = (start - self.start) as usize / WORD_BITS;
            let words = &mut segment[..bits.div_ceil(WORD_BITS)];
            fill(words, &patterns, word_offset);

            // A prime joins at its square; what it divides below that has a smaller factor.
            let segment_end = (start + bits as u64) * WHEEL;
            while let Some(prime) = waiting.next_if(|&prime| u64::from(prime) * u64::from(prime) < segment_end) {
                strides.push(Stride { step: prime, next: (self.first_multiple(prime, start) - start) as u32 });
            }
            for stride in &mut strides {
                stride.cross_off(segment, bits);
            }
            if !bits.is_multiple_of(WORD_BITS) {
                segment[bits / WORD_BITS] &= (1 << (bits % WORD_BITS)) - 1;
            }
            part += self.collect(&segment[..bits.div_ceil(WORD_BITS)], start);
            start += bits as u64;
        }
        part
    }

    /// The least index from `start` on whose number is a multiple of `prime`, and not below its square.
    fn first_multiple(&self, prime: u32, start: u64) -> u64 {
        let prime = u64::from(prime);
        let cofactor_min = self.number(start).div_ceil(prime).max(prime);
        // prime * cofactor must leave `residue`, so the cofactor leaves residue / prime; modulo 30 the fourth power of
        // every prime above 5 is 1, so its inverse is its cube.
        let prime_residue = prime % WHEEL;
        let cofactor_residue = self.residue * prime_residue.pow(3) % WHEEL;
        let wait = (cofactor_residue + WHEEL - cofactor_min % WHEEL) % WHEEL;
        (prime * (cofactor_min + wait) - self.residue) / WHEEL
    }

    fn number(&self, index: u64) -> u64 {
        WHEEL * index + self.residue
    }

    /// Adds up the numbers whose bit is still set; bit 0 of `words` is the index `start`.
    fn collect(&self, words: &[u64], start: u64) -> Part {
        // Fits: at most 2^18 bits, each at a position below 2^18.
        let (mut count, mut offsets) = (0_u64, 0_u64);
        for (at, &word) in words.iter().enumerate() {
            let (ones, positions) = count_and_positions(word);
            count += ones;
            offsets += ones * (at * WORD_BITS) as u64 + positions;
        }
        let sum = u128::from(WHEEL) * u128::from(offsets) + u128::from(count) * u128::from(self.number(start));
        Part { sum, count }
    }
}

/// A base prime on its way through the segments of one class.
struct Stride {
    step: u32,
    /// The next bit to clear, counted from the start of the next segment.
    next: u32,
}

impl Stride {
    #[inline(always)]
    fn cross_off(&mut self, segment: &mut Segment, bits: usize) {
        // Lets the compiler see that no index leaves the segment.
        let bits = bits.min(SEGMENT_BITS);
        let mut bit = self.next as usize;
        while bit < bits {
            segment[bit / WORD_BITS] &= !(1 << (bit % WORD_BITS));
            bit += self.step as usize;
        }
        self.next = (bit - bits) as u32;
    }
}

/// Words with the multiples of a few small primes crossed off; they repeat after as many words as the primes' product.
///
/// These primes cross off more than all others together, so they are worth it.
struct Pattern {
    words: Vec<u64>,
    /// Of the numbers in one word's span, modulo the period.
    span_inverse: u64,
}

static PATTERNS: LazyLock<[Pattern; 3]> =
    LazyLock::new(|| [Pattern::new(&[7, 11, 13]), Pattern::new(&[17, 19]), Pattern::new(&[23, 29])]);

impl Pattern {
    /// The pattern as it is where bit 0 stands for a multiple of all `primes`.
    fn new(primes: &[usize]) -> Pattern {
        let period = primes.iter().product::<usize>();
        let mut words = vec![u64::MAX; period];
        for prime in primes {
            for bit in (0..period * WORD_BITS).step_by(*prime) {
                words[bit / WORD_BITS] &= !(1 << (bit % WORD_BITS));
            }
        }
        let span = WHEEL * WORD_BITS as u64;
        let inverse = (1..period as u64).find(|inverse| span * inverse % period as u64 == 1);
        Pattern { words, span_inverse: inverse.expect("the span shares no prime with the period") }
    }

    /// Which word of the pattern fits where bit 0 stands for `number`: the one whose span begins that far, modulo the
    /// period, beyond a common multiple.
    fn phase(&self, number: u64) -> usize {
        let period = self.words.len() as u64;
        (number % period * self.span_inverse % period) as usize
    }
}

/// Sets `words` to what the patterns leave; each pattern comes with the phase of the class, `word_offset` words ago.
fn fill(words: &mut [u64], patterns: &[(&[u64], usize); 3], word_offset: usize) {
    words.fill(u64::MAX);
    for (pattern, phase) in patterns {
        let mut at = (phase + word_offset) % pattern.len();
        let mut rest = &mut *words;
        while !rest.is_empty() {
            let (head, tail) = rest.split_at_mut(rest.len().min(pattern.len() - at));
            for (word, bits) in head.iter_mut().zip(&pattern[at..]) {
                *word &= bits;
            }
            (rest, at) = (tail, 0);
        }
    }
}

/// How many bits of `word` are set, and the sum of their positions.
fn count_and_positions(word: u64) -> (u64, u64) {
    const PAIRS: u64 = 0x5555_5555_5555_5555;
    const NIBBLES: u64 = 0x3333_3333_3333_3333;
    const BYTES: u64 = 0x0f0f_0f0f_0f0f_0f0f;
    // Fields of two bits, then four, then eight; the upper half of a field lies 1, 2, 4 positions further.
    let upper = word >> 1 & PAIRS;
    let (counts, sums) = ((word & PAIRS) + upper, upper);
    let upper = counts >> 2 & NIBBLES;
    let (counts, sums) = ((counts & NIBBLES) + upper, (sums & NIBBLES) + (sums >> 2 & NIBBLES) + 2 * upper);
    let upper = counts >> 4 & BYTES;
    let (counts, sums) = ((counts & BYTES) + upper, (sums & BYTES) + (sums >> 4 & BYTES) + 4 * upper);
    // A product's top byte is the sum of all bytes, each times its weight: at most 64, 8 * 28 and 8 * 28.
    let top_byte = |bytes: u64, weights: u64| bytes.wrapping_mul(weights) >> 56;
    let byte_positions = 8 * top_byte(counts, 0x0001_0203_0405_0607);
    (top_byte(counts, 0x0101_0101_0101_0101), top_byte(sums, 0x0101_0101_0101_0101) + byte_positions)
}

/// The primes from 31 to `last`.
fn base_primes(last: u32) -> Vec<u32> {
    let last = last as usize;
    let mut composite = vec![false; last + 1];
    let mut primes = Vec::new();
    for number in 2..=last {
        if composite[number] {
            continue;
        }
        if number >= BASE_PRIME_MIN {
            primes.push(number as u32);
        }
        for multiple in (number * number..=last).step_by(number) {
            composite[multiple] = true;
        }
    }
    primes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_and_positions_as_counted_one_by_one() {
        let mut word = 0x9e37_79b9_7f4a_7c15_u64;
        let words = std::iter::repeat_with(|| {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word & word.rotate_left(13)
        });
        for word in words.take(1000).chain([0, 1, 1 << 63, u64::MAX]) {
            let set = (0..64).filter(|bit| word >> bit & 1 == 1);
            assert_eq!(count_and_positions(word), (set.clone().count() as u64, set.sum()), "{word:#x}");
        }
    }

    #[test]
    fn base_primes_from_31() {
        assert!(base_primes(30).is_empty());
        assert_eq!(base_primes(31), [31]);
        assert_eq!(base_primes(60), [31, 37, 41, 43, 47, 53, 59]);
        assert_eq!(base_primes(1_000_000).len() + TABLE_PRIMES.len(), 78_498);
    }

    /// A range cut anywhere adds up to the whole: near the borders of words, segments, patterns and squares.
    #[test]
    fn cut_anywhere() {
        let segment = SEGMENT_BITS as u64 * WHEEL;
        let base = 1_000_003;
        let range = base..base + 2 * segment + 12_345;
        let whole = sieve(range.clone());
        let near = |number: u64| number.saturating_sub(2)..number + 33;
        let cuts = [WHEEL * WORD_BITS as u64, WHEEL * 1001 * WORD_BITS as u64, segment, 2 * segment]
            .into_iter()
            .flat_map(|width| near(base + width))
            .chain([1009 * 1009, 2003 * 2003, 3001 * 3001].into_iter().flat_map(near));
        for cut in cuts.step_by(7) {
            let mut parts = sieve(range.start..cut);
            parts += sieve(cut..range.end);
            assert_eq!(parts, whole, "cut at {cut}");
        }
    }

    #[test]
    fn squares_of_base_primes_are_composite() {
        for prime in base_primes(1000).into_iter().map(u64::from) {
            assert_eq!(sieve(prime * prime..prime * prime + 1), Part::default(), "{prime} squared");
        }
    }

    #[test]
    fn the_last_primes_that_may_be_asked_for() {
        // 999_999_999_989 is the largest prime below 10^12.
        assert_eq!(sieve(999_999_999_960..END_MAX), Part { sum: 999_999_999_961 + 999_999_999_989, count: 2 });
    }
}
