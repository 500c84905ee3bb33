//! Which machine a program is for, told by its ELF header (elf(5)), and which of those this host runs.

use super::tree::Tree;
use rustix::fs::MemfdFlags;
use std::{io::Write, os::fd::AsRawFd, process::Command, sync::OnceLock};

/// A row of [`MACHINES`].
struct Machine {
    /// `e_machine`.
    number: u16,
    /// `EI_CLASS`: 1 for 32 bits, 2 for 64.
    class: u8,
    /// `EI_DATA`: 1 for little endian, 2 for big.
    data: u8,
    /// Debian's word.
    word: &'static str,
}

const fn machine(number: u16, class: u8, data: u8, word: &'static str) -> Machine {
    Machine { number, class, data, word }
}

/// Numbers: linux/elf-em.h. Words: `dpkg-architecture -L`.
const MACHINES: &[Machine] = &[
    machine(62, 2, 1, "amd64"),
    machine(62, 1, 1, "x32"),
    machine(3, 1, 1, "i386"),
    machine(183, 2, 1, "arm64"),
    machine(40, 1, 1, "armhf or armel"),
    machine(243, 2, 1, "riscv64"),
    machine(21, 2, 1, "ppc64el"),
    machine(21, 2, 2, "ppc64"),
    machine(20, 1, 2, "powerpc"),
    machine(22, 2, 2, "s390x"),
    machine(258, 2, 1, "loong64"),
    machine(8, 1, 1, "mipsel"),
    machine(8, 2, 1, "mips64el"),
];

/// Debian's word for this machine.
pub fn host() -> String {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "i386",
        other => other,
    }
    .into()
}

/// What this host's kernel executes, its own kind first.
pub fn runnable() -> Vec<String> {
    let mut all = vec![host()];
    if all[0] == "amd64" && runs_i386() {
        all.push("i386".into());
    }
    all
}

/// What a program is.
#[derive(Debug, PartialEq, Eq)]
pub enum Program {
    /// For this architecture, in Debian's words, with the loader it asks for.
    Elf(String, Option<String>),
    /// Read by this other program.
    Script(String),
    /// Neither.
    Unknown(&'static str),
}

/// Looks at the beginning of a program of the tree.
pub fn of(tree: &Tree, path: &str) -> std::io::Result<Program> {
    // Program headers follow the ELF header, and the loader's name them, in whatever linkers make.
    let head = tree.head(path, 8192)?;
    Ok(match head.strip_prefix(b"#!") {
        Some(line) => {
            let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
            let word = line.split(u8::is_ascii_whitespace).find(|w| !w.is_empty()).unwrap_or_default();
            match std::str::from_utf8(word) {
                Ok(path) if path.starts_with('/') => Program::Script(path.into()),
                _ => Program::Unknown("a script without a usable first line"),
            }
        }
        None if head.starts_with(b"\x7fELF") => elf(&head).unwrap_or(Program::Unknown("a damaged ELF file")),
        None if head.is_empty() => Program::Unknown("an empty file"),
        None => Program::Unknown("neither an ELF program nor a script"),
    })
}

fn elf(head: &[u8]) -> Option<Program> {
    let (class, data) = (*head.get(4)?, *head.get(5)?);
    let number = |at: usize, len: usize| -> Option<u64> {
        let bytes = head.get(at..at.checked_add(len)?)?;
        let add = |n: u64, b: &u8| n << 8 | u64::from(*b);
        Some(if data == 2 { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) })
    };
    let kind = number(18, 2)?;
    let word = MACHINES
        .iter()
        .find(|m| u64::from(m.number) == kind && m.class == class && m.data == data)
        .map_or_else(|| format!("a machine of ELF number {kind}"), |m| m.word.to_owned());
    // Offset, size and number of program headers, and where in one its file offset and size are.
    let (offset, size, count, at, len, width) = match class {
        2 => (number(32, 8)?, number(54, 2)?, number(56, 2)?, 8, 32, 8),
        _ => (number(28, 4)?, number(42, 2)?, number(44, 2)?, 4, 16, 4),
    };
    const PT_INTERP: u64 = 3;
    let loader = (0..count.min(64)).find_map(|n| {
        let row = usize::try_from(offset.checked_add(n * size)?).ok()?;
        (number(row, 4)? == PT_INTERP).then_some(())?;
        let (from, length) = (number(row + at, width)?, number(row + len, width)?);
        let text = head.get(usize::try_from(from).ok()?..usize::try_from(from.checked_add(length)?).ok()?)?;
        String::from_utf8(text.split(|b| *b == 0).next()?.to_vec()).ok().filter(|t| t.starts_with('/'))
    });
    Some(Program::Elf(word, loader))
}

/// Whether this kernel executes 32-bit x86 programs: tried with one that does nothing but end well. Kernels can be built
/// without them and booted with `ia32_emulation=0`.
fn runs_i386() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let run = || -> std::io::Result<bool> {
            let flags = MemfdFlags::CLOEXEC;
            let memory = rustix::fs::memfd_create("vz-i386", flags | MemfdFlags::EXEC)
                .or_else(|_| rustix::fs::memfd_create("vz-i386", flags))?;
            let mut file = std::fs::File::from(memory);
            file.write_all(&I386_TRUE)?;
            // Executed while still open for writing, it would be busy; opened anew by its name, it is not.
            let name = format!("/proc/self/fd/{}", file.as_raw_fd());
            let again = std::fs::File::open(&name)?;
            drop(file);
            let status = Command::new(format!("/proc/self/fd/{}", again.as_raw_fd())).env_clear().status()?;
            Ok(status.success())
        };
        // A child another thread is starting at this moment may still have it open for writing.
        (0..5)
            .find_map(|_| match run() {
                Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => None,
                other => Some(other.unwrap_or(false)),
            })
            .unwrap_or(false)
    })
}

/// A whole i386 program: ELF header, one program header, `mov $1, %eax; xor %ebx, %ebx; int $0x80` (exit(0)).
const I386_TRUE: [u8; 93] = {
    let mut e = [0u8; 93];
    let parts: [(usize, &[u8]); 11] = [
        (0, b"\x7fELF\x01\x01\x01"),
        // ET_EXEC, EM_386, version 1, entry 0x08048054, program headers at 52.
        (16, &[2, 0, 3, 0, 1, 0, 0, 0, 0x54, 0x80, 0x04, 0x08, 52, 0, 0, 0]),
        // Sizes of the headers; one program header.
        (40, &[52, 0, 32, 0, 1, 0]),
        // PT_LOAD from offset 0 at 0x08048000, the whole file, readable and executable, page-aligned.
        (52, &[1, 0, 0, 0]),
        (60, &[0, 0x80, 0x04, 0x08]),
        (64, &[0, 0x80, 0x04, 0x08]),
        (68, &[93, 0, 0, 0]),
        (72, &[93, 0, 0, 0]),
        (76, &[5, 0, 0, 0]),
        (80, &[0, 0x10, 0, 0]),
        (84, &[0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80]),
    ];
    let mut p = 0;
    while p < parts.len() {
        let (at, bytes) = parts[p];
        let mut i = 0;
        while i < bytes.len() {
            e[at + i] = bytes[i];
            i += 1;
        }
        p += 1;
    }
    e
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn program(bytes: &[u8]) -> Program {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("init"), bytes).unwrap();
        of(&Tree::open(dir.path()).unwrap(), "/init").unwrap()
    }

    #[test]
    fn programs_are_told_by_their_headers() {
        assert_eq!(program(&I386_TRUE), Program::Elf("i386".into(), None));
        let mut arm = I386_TRUE;
        arm[4] = 2;
        arm[18] = 183;
        assert_eq!(program(&arm), Program::Elf("arm64".into(), None));
        assert_eq!(program(b"#! /bin/sh -e\n"), Program::Script("/bin/sh".into()));
        assert!(matches!(program(b"#!sh\n"), Program::Unknown(_)));
        assert!(matches!(program(b""), Program::Unknown("an empty file")));
        assert!(matches!(program(b"\x7fELF"), Program::Unknown(_)));
        assert!(matches!(program(b"hello"), Program::Unknown(_)));
    }

    #[test]
    fn a_host_program_is_for_the_host_and_names_its_loader() {
        let tree = Tree::open(Path::new("/")).unwrap();
        let shell = tree.resolve("/bin/sh").unwrap().unwrap().0;
        let Program::Elf(word, loader) = of(&tree, &shell).unwrap() else { panic!("{shell}") };
        assert_eq!(word, host());
        assert!(loader.is_none_or(|l| l.contains("ld")));
        assert!(runnable().contains(&host()));
    }

    #[test]
    fn the_little_32_bit_program_is_one_the_kernel_takes() {
        // The very sysctl of 32-bit x86 tells whether this kernel was built with it.
        let built = Path::new("/proc/sys/abi/vsyscall32").exists();
        assert!(built || !runs_i386());
    }

    #[test]
    fn no_header_makes_the_reader_panic() {
        for n in 0..I386_TRUE.len() {
            program(&I386_TRUE[..n]);
            let mut e = I386_TRUE;
            e[n] = 0xff;
            program(&e);
        }
    }
}
