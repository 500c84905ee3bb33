//! Sparse files: which pieces of a file there are, in the three forms of GNU tar.

use super::{Archive, BLOCK, Bad, Entry, header::decimal};
use tar::{GnuExtSparseHeader, Header};

/// Most pieces of a sparse file.
const MAX_PIECES: usize = 1 << 18;

impl Archive {
    /// The pieces of a sparse file must be in order, inside the file, and as long together as the data.
    pub(super) fn check_pieces(&self, entry: &Entry) -> Result<(), Bad> {
        let Some(pieces) = &entry.pieces else { return Ok(()) };
        let (mut end, mut sum) = (0u64, 0u64);
        for (offset, length) in pieces {
            let next = offset.checked_add(*length).filter(|e| *offset >= end && *e <= entry.size);
            end = next.ok_or_else(|| self.bad("its map of a sparse file overlaps itself or leaves the file"))?;
            sum += length;
        }
        if sum != entry.stored {
            return Err(self.bad("its map of a sparse file does not fit its data"));
        }
        Ok(())
    }

    /// The old GNU form: four pieces in the header, more in blocks behind it.
    pub(super) fn old_sparse(&mut self, header: &Header) -> Result<(u64, Vec<(u64, u64)>), Bad> {
        let damaged = "its map of a sparse file is damaged";
        let gnu = header.as_gnu().ok_or_else(|| self.bad(damaged))?;
        let mut pieces = Vec::new();
        let take = |pieces: &mut Vec<_>, rows: &[tar::GnuSparseHeader]| -> Option<()> {
            for row in rows.iter().filter(|r| !r.is_empty()) {
                pieces.push((row.offset().ok()?, row.length().ok()?));
            }
            (pieces.len() <= MAX_PIECES).then_some(())
        };
        take(&mut pieces, &gnu.sparse).ok_or_else(|| self.bad(damaged))?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            self.exactly(block.as_mut_bytes())?;
            take(&mut pieces, block.sparse()).ok_or_else(|| self.bad(damaged))?;
            more = block.is_extended();
        }
        let size = gnu.real_size().map_err(|_| self.bad(damaged))?;
        Ok((size, pieces))
    }

    /// GNU's pax form 1.0: decimal lines before the data, padded to a block; the first says how many pieces.
    pub(super) fn sparse_map(&mut self) -> Result<Vec<(u64, u64)>, Bad> {
        let damaged = "its map of a sparse file is damaged";
        let mut block = [0u8; BLOCK];
        let mut held: Vec<u8> = Vec::new();
        let mut numbers: Vec<u64> = Vec::new();
        loop {
            if self.data(&mut block)? < BLOCK {
                return Err(self.bad(damaged));
            }
            held.extend_from_slice(&block);
            while let Some(end) = held.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = held.drain(..=end).collect();
                numbers.push(decimal(&line[..end]).ok_or_else(|| self.bad(damaged))?);
                let wanted = numbers[0].saturating_mul(2).saturating_add(1);
                if numbers[0] > MAX_PIECES as u64 {
                    return Err(self.bad(format!("it is a sparse file of more than {MAX_PIECES} pieces")));
                }
                if numbers.len() as u64 == wanted {
                    return Ok(numbers[1..].chunks_exact(2).map(|p| (p[0], p[1])).collect());
                }
            }
            if held.len() > 2 * BLOCK {
                return Err(self.bad(damaged));
            }
        }
    }
}
