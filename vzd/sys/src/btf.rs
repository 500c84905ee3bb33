//! The kernel's own types (BTF), as far as programs have to name them. Format: kernel Documentation/bpf/btf.rst.

use std::io;

/// Where the kernel shows them.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const ENUM64: u32 = 19;

/// Whether this kernel shows its types.
pub fn is_there() -> bool {
    std::path::Path::new(VMLINUX).exists()
}

/// The numbers of these functions of the running kernel among its types, in the order asked for. Reads some 5 MB.
///
/// # Errors
/// The kernel shows none (CONFIG_DEBUG_INFO_BTF), or there is no such function (it is named).
pub fn functions<const N: usize>(names: [&str; N]) -> io::Result<[u32; N]> {
    find(&std::fs::read(VMLINUX)?, names)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn find<const N: usize>(blob: &[u8], names: [&str; N]) -> io::Result<[u32; N]> {
    let mut found = [0; N];
    look(blob, &names, &mut found).ok_or_else(|| io::Error::other(format!("{VMLINUX} cannot be read")))?;
    match found.iter().position(|id| *id == 0) {
        Some(missing) => Err(io::Error::other(format!("this kernel has no {}", names[missing]))),
        None => Ok(found),
    }
}

/// `None`: it ends too early, or has a kind of type that is not known here.
fn look(blob: &[u8], names: &[&str], found: &mut [u32]) -> Option<()> {
    // struct btf_header: hdr_len at 4, then type_off, type_len, str_off, str_len.
    let header = word(blob, 4)? as usize;
    let types = header + word(blob, 8)? as usize;
    let end = types + word(blob, 12)? as usize;
    let strings = blob.get(header + word(blob, 16)? as usize..)?;
    let (mut at, mut id) = (types, 1);
    while at < end {
        // struct btf_type: name_off, info (kind << 24 | vlen), size or type.
        let (name, info) = (word(blob, at)? as usize, word(blob, at + 4)?);
        let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        if kind == FUNC {
            let name = strings.get(name..)?;
            let is = |n: &&str| name.get(n.len()) == Some(&0) && name.starts_with(n.as_bytes());
            if let Some(n) = names.iter().position(is) {
                found[n] = id;
            }
        }
        at += 12
            + match kind {
                INT | VAR | DECL_TAG => 4,
                ARRAY => 12,
                STRUCT | UNION | DATASEC | ENUM64 => 12 * count,
                ENUM | FUNC_PROTO => 8 * count,
                0 | 20.. => return None,
                _ => 0,
            };
        id += 1;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_by_their_whole_name() {
        let names = b"\0int\0walk\0walk_on\0";
        let types: [u32; 4 + 3 + 3 + 3] =
            [1, INT << 24, 4, 32, 0, FUNC_PROTO << 24, 0, 10, FUNC << 24, 2, 5, FUNC << 24, 2];
        let length = size_of_val(&types) as u32;
        let header = [0x0001_eb9f, 24, 0, length, length, names.len() as u32];
        let mut blob: Vec<u8> = header.iter().chain(&types).flat_map(|w| w.to_ne_bytes()).collect();
        blob.extend_from_slice(names);
        assert_eq!(find(&blob, ["walk", "walk_on"]).unwrap(), [4, 3]);
        assert!(find(&blob, ["wal"]).unwrap_err().to_string().contains("no wal"));
        for cut in 0..blob.len() - names.len() {
            assert!(find(&blob[..cut], ["walk"]).is_err(), "{cut}");
        }
    }
}
