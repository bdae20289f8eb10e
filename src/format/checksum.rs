//! CRC-32 (IEEE) as the format uses it.

/// Checksum of `bytes` followed by zeros up to `stored` bytes in all.
pub(crate) fn crc32_padded(bytes: &[u8], stored: usize) -> u32 {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes);
    let mut rest = stored - bytes.len();
    while rest > 0 {
        let step = rest.min(ZEROS.len());
        hasher.update(&ZEROS[..step]);
        rest -= step;
    }
    hasher.finalize()
}

/// Checksum of `bytes`.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_ieee_polynomial_and_pads_with_zeros() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32_padded(b"ab", 9000), crc32(&[b"ab".to_vec(), vec![0; 8998]].concat()));
    }
}
