//! A transaction of ours as one of etcd's.

use std::collections::HashMap;

use etcd_client::{PutOptions, Txn, TxnOp};
use mobula_core::limits;
use mobula_head::Write;
use mobula_head::store::{StoreError, Transaction};

/// etcd takes 128 operations in a transaction unless it is told otherwise, where one that is inside of another counts for itself and what is
/// left to it: so 120 go flat, and 40 times 40 times 40 in three layers. A few are left for what is written beside them.
const OPERATIONS: usize = 120;
const LAYERS: usize = 3;

/// The writes of a transaction, the last one for each key: etcd takes no two for the same.
pub(crate) fn writes(transaction: &Transaction) -> Result<Vec<&Write>, StoreError> {
    let mut last: HashMap<&str, usize> = HashMap::new();
    for (at, write) in transaction.writes.iter().enumerate() {
        last.insert(key_of(write), at);
        let limit = limits::STORE_VALUE_BYTES_MAX;
        if let Write::Put { key, value } = write
            && value.len() > limit
        {
            return Err(StoreError::TooLarge { key: key.clone(), bytes: value.len(), limit });
        }
    }
    let all = transaction.writes.iter().enumerate();
    Ok(all.filter(|(at, write)| last.get(key_of(write)) == Some(at)).map(|(_, write)| write).collect())
}

pub(crate) fn key_of(write: &Write) -> &str {
    match write {
        Write::Put { key, .. } | Write::Delete { key } => key,
    }
}

/// Keys and values together.
pub(crate) fn bytes(writes: &[&Write]) -> usize {
    let value = |write: &Write| match write {
        Write::Put { value, .. } => value.len(),
        Write::Delete { .. } => 0,
    };
    writes.iter().map(|write| key_of(write).len() + value(write)).sum()
}

/// Operations for writes, each under `scope`.
pub(crate) fn operations(scope: &str, writes: &[&Write], lease: Option<i64>) -> Vec<TxnOp> {
    let options = || lease.map(|lease| PutOptions::new().with_lease(lease));
    let operation = |write: &&Write| match write {
        Write::Put { key, value } => TxnOp::put(format!("{scope}{key}"), value.clone(), options()),
        Write::Delete { key } => TxnOp::delete(format!("{scope}{key}"), None),
    };
    writes.iter().map(operation).collect()
}

/// As many operations as etcd takes at once, in as few layers as that needs. None if they are too many.
pub(crate) fn in_layers(operations: Vec<TxnOp>) -> Option<Vec<TxnOp>> {
    let layers = layers(operations.len())?;
    let width = OPERATIONS / layers;
    let mut nested = operations;
    for _ in 1..layers {
        let mut rest = nested.into_iter().peekable();
        let mut outer = Vec::new();
        while rest.peek().is_some() {
            let inner: Vec<TxnOp> = rest.by_ref().take(width).collect();
            outer.push(TxnOp::txn(Txn::new().and_then(inner)));
        }
        nested = outer;
    }
    Some(nested)
}

fn layers(operations: usize) -> Option<usize> {
    (1..=LAYERS).find(|layers| operations <= (OPERATIONS / layers).pow(u32::try_from(*layers).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_writes_of_a_key_the_last_counts() {
        let put = |key: &str, value: u8| Write::Put { key: key.to_owned(), value: vec![value] };
        let all = vec![put("a", 1), Write::Delete { key: "b".to_owned() }, put("a", 2), put("b", 3), put("c", 4)];
        let transaction = Transaction { writes: all.clone(), ..Transaction::default() };
        assert_eq!(writes(&transaction), Ok(vec![&all[2], &all[3], &all[4]]));
        assert_eq!(bytes(&[&all[1], &all[2]]), 3);
    }

    #[test]
    fn layers_are_as_few_as_can_be() {
        for (operations, layers) in [(0, 1), (120, 1), (121, 2), (3600, 2), (3601, 3), (64_000, 3)] {
            assert_eq!(super::layers(operations), Some(layers), "{operations}");
        }
        assert_eq!(super::layers(64_001), None);
        let many = |count| (0..count).map(|at| TxnOp::put(format!("{at}"), "", None)).collect::<Vec<_>>();
        for (count, width) in [(120, 120), (121, 3), (3600, 60), (3601, 3), (64_000, 40)] {
            assert_eq!(in_layers(many(count)).map(|outer| outer.len()), Some(width), "{count}");
        }
        assert!(in_layers(many(64_001)).is_none());
    }
}
