//! Fee rates that differ little count as one: buckets whose bounds rise by a twentieth.

/// The upper bound of the first bucket, in satoshi per 1000 virtual bytes.
const FIRST: f64 = 100.0;
/// The last upper bound is at most this; one bucket takes all that is above.
const LAST: f64 = 10_000_000.0;
/// From one bound to the next.
const STEP: f64 = 1.05;
/// How many there are.
pub(super) const BUCKETS: usize = 237;

/// The bucket of a fee rate in satoshi per 1000 virtual bytes.
pub(super) fn bucket_of(rate: f64) -> usize {
    let mut bound = FIRST;
    let mut bucket = 0;
    while bound <= LAST && rate > bound {
        bound *= STEP;
        bucket += 1;
    }
    bucket
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_fall_into_their_buckets() {
        assert_eq!(bucket_of(0.0), 0);
        assert_eq!(bucket_of(100.0), 0);
        assert_eq!(bucket_of(100.1), 1);
        assert_eq!(bucket_of(105.0), 1);
        assert_eq!(bucket_of(106.0), 2);
        assert_eq!(bucket_of(f64::INFINITY), BUCKETS - 1);
    }
}
