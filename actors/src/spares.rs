//! Boxes of a thread that are used again. Each call needs a slot for its answer and an envelope, and with many under way the
//! allocator takes longer for them than the mailbox does.

use std::any::{Any, TypeId};
use std::cell::RefCell;

/// Boxes of one type that a thread keeps: as many as a window of credit puts into a mailbox.
const EACH_MAX: usize = 1024;

/// Types of which a thread keeps boxes; the one that was not used for longest makes room.
const TYPES_MAX: usize = 8;

/// Larger boxes are given back.
const BYTES_MAX: usize = 256;

/// The type of the boxes, and a vector of them.
type Row = (TypeId, Box<dyn Any>);

thread_local! {
    static SPARES: RefCell<Vec<Row>> = const { RefCell::new(Vec::new()) };
}

/// The boxes of one type, which come to the front if they are found far behind: those in use stay where they are.
fn row<B: 'static>(rows: &mut [Row]) -> Option<&mut Vec<B>> {
    let wanted = TypeId::of::<B>();
    let at = rows.iter().position(|(known, _)| *known == wanted)?;
    let at = match at < TYPES_MAX / 2 {
        true => at,
        false => {
            rows[..=at].rotate_right(1);
            0
        }
    };
    rows.get_mut(at)?.1.downcast_mut()
}

/// A box that was kept.
pub(crate) fn take<B: 'static>() -> Option<B> {
    SPARES.try_with(|spares| row::<B>(&mut spares.borrow_mut())?.pop()).ok()?
}

/// Keeps a box whose content, of type `T`, is gone.
pub(crate) fn keep<T, B: 'static>(spare: B) {
    if size_of::<T>() > BYTES_MAX {
        return;
    }
    // What finds no room is dropped when nothing is borrowed any more.
    let mut spare = Some(spare);
    let mut dropped = None;
    let _ = SPARES.try_with(|spares| {
        let mut rows = spares.borrow_mut();
        let rows = &mut *rows;
        match row::<B>(rows) {
            Some(kept) if kept.len() < EACH_MAX => kept.extend(spare.take()),
            Some(_) => {}
            None => {
                if rows.len() >= TYPES_MAX {
                    dropped = rows.pop();
                }
                rows.insert(0, (TypeId::of::<B>(), Box::new(Vec::from_iter(spare.take()))));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_by_its_type_and_no_more_than_enough_is_kept() {
        assert_eq!(take::<Box<u32>>(), None);
        keep::<u32, _>(Box::new(1_u32));
        keep::<u64, _>(Box::new(2_u64));
        assert_eq!(take::<Box<u32>>(), Some(Box::new(1)));
        assert_eq!(take::<Box<u32>>(), None);
        assert_eq!(take::<Box<u64>>(), Some(Box::new(2)));
        for number in 0..2 * EACH_MAX as u32 {
            keep::<u32, _>(Box::new(number));
        }
        assert_eq!(std::iter::from_fn(take::<Box<u32>>).count(), EACH_MAX);
        keep::<[u8; BYTES_MAX + 1], _>(Box::new([0_u8; BYTES_MAX + 1]));
        assert_eq!(take::<Box<[u8; BYTES_MAX + 1]>>(), None, "too large");
    }

    #[test]
    fn the_type_that_was_not_used_for_longest_makes_room() {
        macro_rules! keep_all {
            ($($size:literal)*) => { $(keep::<[u8; $size], _>(Box::new([0_u8; $size]));)* };
        }
        keep_all!(1 2 3 4 5 6 7 8);
        assert!(take::<Box<[u8; 1]>>().is_some());
        keep_all!(9);
        assert!(take::<Box<[u8; 2]>>().is_none());
        assert!(take::<Box<[u8; 3]>>().is_some() && take::<Box<[u8; 9]>>().is_some());
    }
}
