//! Fee rate diagrams: the fees that the best of a set of chunks earn in each amount of weight. A replacement must make
//! the diagram better somewhere and worse nowhere.

use std::cmp::Ordering;

use crate::feerate::Ratio;

/// Compares two sets of chunks. `None` when each is better somewhere.
pub(crate) fn compare(left: &[Ratio], right: &[Ratio]) -> Option<Ordering> {
    let (left, right) = (Diagram::new(left), Diagram::new(right));
    let mut result = Ordering::Equal;
    for (at, sum) in left.corners() {
        // Whatever is between two corners is straight on one side and bent downwards on the other, so looking at all
        // corners of both is enough.
        let here = right.compare_at(at, sum).reverse();
        result = merge(result, here)?;
    }
    for (at, sum) in right.corners() {
        result = merge(result, left.compare_at(at, sum))?;
    }
    Some(result)
}

fn merge(so_far: Ordering, here: Ordering) -> Option<Ordering> {
    match (so_far, here) {
        (Ordering::Equal, other) | (other, Ordering::Equal) => Some(other),
        (a, b) if a == b => Some(a),
        _ => None,
    }
}

struct Diagram {
    chunks: Vec<Ratio>,
}

impl Diagram {
    fn new(chunks: &[Ratio]) -> Self {
        let mut chunks = chunks.to_vec();
        chunks.sort_by(|a, b| b.cmp_rate(a));
        Self { chunks }
    }

    /// Weight and fees at the end of each chunk.
    fn corners(&self) -> impl Iterator<Item = (u64, i64)> + '_ {
        self.chunks.iter().scan(Ratio::default(), |sum, chunk| {
            *sum = sum.add(*chunk);
            Some((sum.weight, sum.fee))
        })
    }

    /// Compares the fees of this diagram in `weight` with `fee`. After the last chunk the diagram stays level.
    fn compare_at(&self, weight: u64, fee: i64) -> Ordering {
        let mut sum = Ratio::default();
        for chunk in &self.chunks {
            let end = sum.add(*chunk);
            if end.weight >= weight {
                // fees = sum.fee + (weight - sum.weight) * chunk.fee / chunk.weight, compared without the division.
                let part = i128::from(weight - sum.weight) * i128::from(chunk.fee);
                let scale = i128::from(chunk.weight);
                return (i128::from(sum.fee) * scale + part).cmp(&(i128::from(fee) * scale));
            }
            sum = end;
        }
        sum.fee.cmp(&fee)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(list: &[(i64, u64)]) -> Vec<Ratio> {
        list.iter()
            .map(|(fee, weight)| Ratio {
                fee: *fee,
                weight: *weight,
            })
            .collect()
    }

    fn check(left: &[(i64, u64)], right: &[(i64, u64)]) -> Option<Ordering> {
        let forward = compare(&chunks(left), &chunks(right));
        assert_eq!(compare(&chunks(right), &chunks(left)).map(Ordering::reverse), forward);
        forward
    }

    #[test]
    fn better_everywhere_equal_or_crossing() {
        assert_eq!(check(&[], &[]), Some(Ordering::Equal));
        assert_eq!(check(&[(1, 1)], &[]), Some(Ordering::Greater));
        assert_eq!(
            check(&[(0, 1)], &[]),
            Some(Ordering::Equal),
            "a free transaction adds nothing"
        );
        assert_eq!(
            check(&[(950, 300), (100, 100)], &[(950, 300), (100, 100)]),
            Some(Ordering::Equal)
        );
        assert_eq!(check(&[(1000, 300)], &[(950, 300)]), Some(Ordering::Greater));
        assert_eq!(check(&[(900, 300)], &[(950, 300)]), Some(Ordering::Less));
        // More fees in all, but less in a small block.
        assert_eq!(check(&[(1000, 600)], &[(950, 300)]), None);
        // One chunk cut in two equal ones is the same line.
        assert_eq!(check(&[(100, 100), (100, 100)], &[(200, 200)]), Some(Ordering::Equal));
        // A dent between the corners of the other.
        assert_eq!(check(&[(150, 100), (50, 100)], &[(200, 200)]), Some(Ordering::Greater));
        assert_eq!(
            check(&[(50, 100), (150, 100)], &[(200, 200)]),
            Some(Ordering::Greater),
            "chunks are sorted first"
        );
    }
}
