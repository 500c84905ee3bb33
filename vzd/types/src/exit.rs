//! What `vzctl` exits with. Scripts branch on these numbers (vzctl 4.11), so they are frozen.

use serde::{Deserialize, Serialize};

macro_rules! exit_codes {
    ($(#[doc = $doc:literal] $name:ident = $n:literal),+ $(,)?) => {
        /// Exit codes of `vzctl`, with the numbers of vzctl 4.11.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u8", into = "u8")]
        pub enum ExitCode { $(#[doc = $doc] $name = $n),+ }

        impl ExitCode {
            /// Every code, in numeric order, with its name and meaning.
            pub const ALL: &'static [(ExitCode, &'static str)] = &[$((ExitCode::$name, stringify!($name))),+];

            /// The meaning: one sentence with a full stop.
            pub fn meaning(self) -> &'static str {
                match self { $(ExitCode::$name => $doc.trim_ascii()),+ }
            }
        }
    };
}

exit_codes! {
    /// Success.
    Ok = 0,
    /// A system call or an unexpected internal condition failed.
    System = 3,
    /// Resources could not be set.
    Resource = 6,
    /// The container's environment could not be created.
    Environment = 7,
    /// The command run by `exec` failed.
    ExecFailed = 8,
    /// Another operation on this container is under way.
    Locked = 9,
    /// This user may not do that, nor look.
    PermissionDenied = 12,
    /// There is no configuration of that container.
    NoConfig = 14,
    /// Running the command took too long.
    ExecTimeout = 15,
    /// Suspending failed.
    SuspendFailed = 16,
    /// Resuming failed.
    RestoreFailed = 17,
    /// The command line could not be understood.
    BadSyntax = 20,
    /// A value could not be understood.
    BadValue = 21,
    /// The container's root is not set.
    RootUnset = 22,
    /// The container's private area is not set.
    PrivateUnset = 23,
    /// The template area is not set.
    TemplateUnset = 24,
    /// No OS template is set.
    OsTemplateUnset = 29,
    /// The container is not running.
    NotRunning = 31,
    /// The container is running.
    Running = 32,
    /// Stopping failed.
    StopFailed = 33,
    /// An address could not be added.
    CannotAddIp = 34,
    /// The container is not mounted.
    NotMounted = 40,
    /// The container is mounted.
    Mounted = 41,
    /// The container's private area is missing.
    NoPrivateArea = 43,
    /// The private area, or the container, exists already.
    Exists = 44,
    /// Not enough disk space.
    NoSpace = 46,
    /// The template is unusable (no init).
    BadTemplate = 47,
    /// Mounting failed.
    MountFailed = 50,
    /// Unmounting failed.
    UmountFailed = 51,
    /// Deleting failed.
    DeleteFailed = 52,
    /// The host name is unusable.
    BadHostname = 70,
    /// The address is unusable.
    BadIp = 71,
    /// The name server or search domain is unusable.
    BadDns = 72,
    /// The password could not be changed.
    PasswordFailed = 74,
    /// The address is in use elsewhere.
    IpInUse = 78,
    /// An action script failed.
    ScriptFailed = 79,
    /// The container's configuration is invalid.
    BadConfig = 85,
    /// There is no OS template of that name.
    NoTemplate = 91,
    /// The network device cannot be used.
    NetDev = 104,
    /// The container is disabled.
    Disabled = 105,
    /// The sample configuration could not be applied.
    ApplyConfig = 109,
    /// A veth device could not be set up.
    Veth = 130,
    /// The name could not be set.
    SetName = 131,
    /// The configuration could not be saved.
    ConfigSave = 139,
    /// I/O parameters could not be set.
    IoParams = 148,
}

impl ExitCode {
    /// The number a process exits with.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<ExitCode> for u8 {
    fn from(c: ExitCode) -> u8 {
        c.code()
    }
}

impl TryFrom<u8> for ExitCode {
    type Error = String;
    fn try_from(n: u8) -> Result<Self, String> {
        Self::ALL.iter().map(|(c, _)| *c).find(|c| c.code() == n).ok_or_else(|| format!("{n} is no vzctl exit code"))
    }
}
