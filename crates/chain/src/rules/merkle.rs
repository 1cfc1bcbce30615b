//! Merkle trees over transaction ids, with the check against duplicated subtrees (CVE-2012-2459).

use bitcoin::hashes::{Hash, sha256d};

/// A merkle root and whether the list of leaves could be a doctored version of a shorter one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merkle {
    /// The root; all zero for an empty list.
    pub root: sha256d::Hash,
    /// Two equal neighbours were hashed together somewhere in the tree. An odd row repeats its last hash, so a list
    /// with its tail repeated has the root of the list without: such a body must be refused without condemning the
    /// header that it claims.
    pub mutated: bool,
}

/// The root over `leaves` in order.
pub fn merkle_root(leaves: impl IntoIterator<Item = sha256d::Hash>) -> Merkle {
    let mut row: Vec<sha256d::Hash> = leaves.into_iter().collect();
    let mut mutated = false;
    while row.len() > 1 {
        row = row
            .chunks(2)
            .map(|pair| {
                let mut bytes = [0; 64];
                let (left, right) = bytes.split_at_mut(32);
                left.copy_from_slice(pair[0].as_byte_array());
                right.copy_from_slice(pair.get(1).unwrap_or(&pair[0]).as_byte_array());
                mutated |= pair.len() == 2 && pair[0] == pair[1];
                sha256d::Hash::hash(&bytes)
            })
            .collect();
    }
    Merkle {
        root: row.first().copied().unwrap_or_else(sha256d::Hash::all_zeros),
        mutated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(numbers: &[u8]) -> Vec<sha256d::Hash> {
        numbers
            .iter()
            .map(|n| sha256d::Hash::from_byte_array([*n; 32]))
            .collect()
    }

    #[test]
    fn empty_and_single() {
        assert_eq!(
            merkle_root([]),
            Merkle {
                root: sha256d::Hash::all_zeros(),
                mutated: false
            }
        );
        assert_eq!(
            merkle_root(leaves(&[7])),
            Merkle {
                root: leaves(&[7])[0],
                mutated: false
            }
        );
    }

    #[test]
    fn agrees_with_the_library_for_every_small_size() {
        for size in 1..=33_u8 {
            let row = leaves(&(1..=size).collect::<Vec<_>>());
            let theirs = bitcoin::merkle_tree::calculate_root(row.iter().copied());
            assert_eq!(Some(merkle_root(row).root), theirs);
        }
    }

    #[test]
    fn a_repeated_tail_keeps_the_root_and_is_noticed() {
        let honest = merkle_root(leaves(&[1, 2, 3, 4, 5, 6]));
        let doctored = merkle_root(leaves(&[1, 2, 3, 4, 5, 6, 5, 6]));
        assert_eq!(honest.root, doctored.root);
        assert!(!honest.mutated);
        assert!(doctored.mutated);
        assert!(merkle_root(leaves(&[1, 2, 3, 3])).mutated);
        assert_eq!(
            merkle_root(leaves(&[1, 2, 3, 3])).root,
            merkle_root(leaves(&[1, 2, 3])).root
        );
        assert!(
            !merkle_root(leaves(&[1, 2, 2, 3])).mutated,
            "equal leaves that are not hashed together are harmless"
        );
        assert!(merkle_root(leaves(&[1, 1, 2, 3])).mutated);
    }
}
