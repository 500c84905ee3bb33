# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_vzctl_global_optspecs
    string join \n quiet verbose skiplock root= background json h/help V/version
end

function __fish_vzctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_vzctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_vzctl_using_subcommand
    set -l cmd (__fish_vzctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c vzctl -n "__fish_vzctl_needs_command" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_needs_command" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_needs_command" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_needs_command" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_needs_command" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_needs_command" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vzctl -n "__fish_vzctl_needs_command" -s V -l version -d 'Print version'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "template" -d 'Build, list, show and remove OS templates'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "create" -d 'Make a CT from an OS template'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "start" -d 'Boot a CT'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "stop" -d 'Shut a CT down, and kill what is left at the timeout'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "restart" -d 'Stop a CT if it runs, then start it'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "destroy" -d 'Remove a CT and its files; its configuration stays as CTID.toml.destroyed'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "delete" -d 'Remove a CT and its files; its configuration stays as CTID.toml.destroyed'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "status" -d 'Say in one line whether a CT exists, is mounted and runs'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "exec" -d 'Run a shell command in a CT; any failure exits 8'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "exec2" -d 'Run a shell command in a CT and exit with its own status'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "enter" -d 'Open a root shell in a CT: on a terminal of its own where ours is one, else with our input to its end'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "console" -d 'Join a CT\'s console; `Esc .` leaves it'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "runscript" -d 'Run a script of the host in a CT; one that does not run is started for it and stopped again'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "mount" -d 'Show a stopped CT\'s files on the host'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "umount" -d 'Hide them again'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "set" -d 'Change a CT, running or not'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "list" -d 'List CTs (the same as vzlist)'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "operations" -d 'List operations: what is under way, and what was done'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "wait" -d 'Wait until an operation has ended, and exit as it would have'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "cancel" -d 'Ask an operation to end, and wait until what it has done is taken back'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "history" -d 'List who did what to a CT and when, oldest first; also of one that was destroyed'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "why" -d 'Say what was refused to a CT because of limits, when, and what to change'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "events" -d 'List what happened to CTs because of limits, oldest first'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "metrics" -d 'Print figures of all running CTs in Prometheus\' text format'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "samples" -d 'List the sample configurations, or print one'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "check" -d 'Say what this host can and cannot do, with the remedy for each gap'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "recover" -d 'Build a lost inventory anew from configuration files and private areas, while vzd is stopped'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "version" -d 'Print the versions of vzctl and of the running vzd'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "completion" -d 'Print the completion script of a shell'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "man" -d 'Write man pages, completions and cli.md below DIR, as they lie in the checkout'
complete -c vzctl -n "__fish_vzctl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and not __fish_seen_subcommand_from build import list show remove help" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and not __fish_seen_subcommand_from build import list show remove help" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and not __fish_seen_subcommand_from build import list show remove help" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and not __fish_seen_subcommand_from build import list show remove help" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and not __fish_seen_subcommand_from build import list show remove help" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and not __fish_seen_subcommand_from build import list show remove help" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and not __fish_seen_subcommand_from build import list show remove help" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and not __fish_seen_subcommand_from build import list show remove help" -f -a "build" -d 'Build an OS template from its recipe'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and not __fish_seen_subcommand_from build import list show remove help" -f -a "import" -d 'Make an OS template from a root filesystem in a tar archive, made by whatever means'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and not __fish_seen_subcommand_from build import list show remove help" -f -a "list" -d 'List the OS templates, built, imported or buildable'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and not __fish_seen_subcommand_from build import list show remove help" -f -a "show" -d 'Show one OS template with its packages'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and not __fish_seen_subcommand_from build import list show remove help" -f -a "remove" -d 'Remove an OS template no CT was made from'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and not __fish_seen_subcommand_from build import list show remove help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from build" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from build" -l rebuild -d 'Build it again although it exists; CTs keep the files they were made from'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from build" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from build" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from build" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from build" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from build" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from build" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from import" -l name -d 'Name of the template; without it, that of the file up to `.tar`' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from import" -l description -d 'One line for `template show`' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from import" -l max-size -d 'Most bytes its files may have together, with a suffix like 20G; else 9 tenths of what the disk has left' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from import" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from import" -l replace -d 'Replace an OS template of that name; CTs keep the files they were made from'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from import" -l skip-devices -d 'Leave every device node out, instead of refusing those no plain system has in /dev'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from import" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from import" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from import" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from import" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from import" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from list" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from list" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from list" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from list" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from list" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from list" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from show" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from show" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from show" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from show" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from show" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from show" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from remove" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from remove" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from remove" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from remove" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from remove" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from remove" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from help" -f -a "build" -d 'Build an OS template from its recipe'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from help" -f -a "import" -d 'Make an OS template from a root filesystem in a tar archive, made by whatever means'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the OS templates, built, imported or buildable'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show one OS template with its packages'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Remove an OS template no CT was made from'
complete -c vzctl -n "__fish_vzctl_using_subcommand template; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l ostemplate -d 'OS template to make it from (`vzctl template list`); vz.toml may name a default' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l config -d 'Take limits and disk quota from a sample configuration first (`vzctl samples`)' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l layout -d 'How its files are stored: overlay' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l onboot -d 'Start it when the host has booted' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l bootorder -d 'Higher ones boot first, equal ones together' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l name -d 'A name that can stand for the CTID; \'\' removes it' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l description -d 'One line of free text; \'\' removes it' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l disabled -d 'Refuse to start' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l hostname -d 'Host name inside' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l nameserver -d 'Name server, or inherit for the host\'s; repeatable, replaces all' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l searchdomain -d 'Search domain; repeatable, replaces all' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l userpasswd -d 'Change a user\'s password inside now; asked for, or read from standard input, where it is left out or is -' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l sshkey -d 'Add a public key, or those of a file, to a user\'s authorized_keys now; the user is root unless prefixed' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l sshuser -d 'User of every --sshkey without a prefix' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l ipadd -d 'Add an IPv4 or IPv6 address; repeatable' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l ipdel -d 'Remove an address, or all, before adding; repeatable' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l diskspace -d 'Space of its own files, like 10G; a bare number is KiB' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l diskinodes -d 'Inodes of its own files' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l features -d 'Open or close kernel surfaces: nesting, tun, fuse, netns, keyctl, io_uring, bpf, xfrm, socketcall' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l ids -d 'User and group ids it has, from 0 on: a multiple of 65536, 65536 without it; it can only grow' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l ram -d 'Memory, like 512M: sets physpages to 0:SIZE' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l swap -d 'Swap space, like 1G: sets swappages to 0:SIZE' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l vm_overcommit -d 'Address space of each process, as a factor of RAM and swap; 0: no limit' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l cpuunits -d 'Share of processor time against others, 8..500000; 1000 is normal' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l cpulimit -d 'Processor time in percent of one CPU; 0: no limit' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l cpus -d 'Processor time of N CPUs; 0: all' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l cpumask -d 'Processors to run on, like 0-3,6, or all' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l nodemask -d 'Memory nodes to use, like 0-1, or all' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l ioprio -d 'Share of disk time against others; 4 is normal' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l iolimit -d 'Disk bandwidth a second, of reads and of writes each; a bare number is MB; 0: no limit' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l iopslimit -d 'Disk operations a second, of reads and of writes each; 0: no limit' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l kmemsize -d 'In bytes, accounted; nothing of its own: it is part of what physpages limits' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l lockedpages -d 'In pages, per-process; limit: RLIMIT_MEMLOCK of every process' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l privvmpages -d 'In pages, per-process; limit: RLIMIT_AS of every process; without it vm_overcommit times (physpages + swappages)' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l shmpages -d 'In pages, enforced; limit: kernel.shmall of the container\'s ipc namespace and the size of its /dev/shm' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l numproc -d 'In items, enforced; limit: pids.max (processes and threads)' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l physpages -d 'In pages, enforced; limit: memory.max; a barrier above 0 and below the limit: memory.high. Barrier 0 is unset' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l vmguarpages -d 'In pages, guaranteed; barrier: memory.low' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l oomguarpages -d 'In pages, guaranteed; barrier: memory.min' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l numtcpsock -d 'In items, enforced; limit: a cgroup BPF program that counts TCP sockets from socket(2) or accept to release' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l numflock -d 'In items, accounted; nothing: the kernel has no limit of its own' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l numpty -d 'In items, enforced; limit: max= of the container\'s /dev/pts' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l numsiginfo -d 'In items, enforced; limit: RLIMIT_SIGPENDING of the container\'s user namespace, counted for all of it' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l tcpsndbuf -d 'In bytes, per-process; limit: the maximum in net.ipv4.tcp_wmem of the container\'s network' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l tcprcvbuf -d 'In bytes, per-process; limit: the maximum in net.ipv4.tcp_rmem of the container\'s network' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l othersockbuf -d 'In bytes, accounted; nothing of its own: it is part of what physpages limits' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l dgramrcvbuf -d 'In bytes, accounted; nothing of its own: it is part of what physpages limits' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l numothersock -d 'In items, enforced; limit: the same program, for UDP, raw and ICMP sockets' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l dcachesize -d 'In bytes, accounted; nothing of its own: it is part of what physpages limits' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l numfile -d 'In items, per-process; limit: RLIMIT_NOFILE of every process' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l numiptent -d 'In items, accounted; nothing: the kernel has no limit of its own' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l swappages -d 'In pages, enforced; limit: memory.swap.max' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand create" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand start" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand start" -l remembered -d 'Those that the last `stop --all --remember` has stopped'
complete -c vzctl -n "__fish_vzctl_using_subcommand start" -l wait -d 'Answer when its default runlevel is reached, not when init runs'
complete -c vzctl -n "__fish_vzctl_using_subcommand start" -l force -d 'Start it although it is disabled'
complete -c vzctl -n "__fish_vzctl_using_subcommand start" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand start" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand start" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand start" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand start" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand start" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand stop" -l timeout -d 'Seconds before the kill, 1..3600' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand stop" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand stop" -l all -d 'Every CT that runs, side by side; needs no vzd'
complete -c vzctl -n "__fish_vzctl_using_subcommand stop" -l remember -d 'Note which they were, for `start --remembered`'
complete -c vzctl -n "__fish_vzctl_using_subcommand stop" -l fast -d 'Kill at once'
complete -c vzctl -n "__fish_vzctl_using_subcommand stop" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand stop" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand stop" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand stop" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand stop" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand stop" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand restart" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand restart" -l wait -d 'Answer when its default runlevel is reached, not when init runs'
complete -c vzctl -n "__fish_vzctl_using_subcommand restart" -l force -d 'Start it although it is disabled'
complete -c vzctl -n "__fish_vzctl_using_subcommand restart" -l fast -d 'Kill at once instead of shutting down'
complete -c vzctl -n "__fish_vzctl_using_subcommand restart" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand restart" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand restart" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand restart" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand restart" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand restart" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand destroy" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand destroy" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand destroy" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand destroy" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand destroy" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand destroy" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand destroy" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand delete" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand delete" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand delete" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand delete" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand delete" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand delete" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand delete" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand status" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand status" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand status" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand status" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand status" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand status" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand status" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand exec" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand exec" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand exec" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand exec" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand exec" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand exec" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand exec" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand exec2" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand exec2" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand exec2" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand exec2" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand exec2" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand exec2" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand exec2" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand enter" -l exec -d 'Run this command instead of a shell' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand enter" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand enter" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand enter" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand enter" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand enter" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand enter" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand enter" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand console" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand console" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand console" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand console" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand console" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand console" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand console" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand runscript" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand runscript" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand runscript" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand runscript" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand runscript" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand runscript" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand runscript" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand mount" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand mount" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand mount" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand mount" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand mount" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand mount" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand mount" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand umount" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand umount" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand umount" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand umount" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand umount" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand umount" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand umount" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l onboot -d 'Start it when the host has booted' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l bootorder -d 'Higher ones boot first, equal ones together' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l name -d 'A name that can stand for the CTID; \'\' removes it' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l description -d 'One line of free text; \'\' removes it' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l disabled -d 'Refuse to start' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l hostname -d 'Host name inside' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l nameserver -d 'Name server, or inherit for the host\'s; repeatable, replaces all' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l searchdomain -d 'Search domain; repeatable, replaces all' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l userpasswd -d 'Change a user\'s password inside now; asked for, or read from standard input, where it is left out or is -' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l sshkey -d 'Add a public key, or those of a file, to a user\'s authorized_keys now; the user is root unless prefixed' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l sshuser -d 'User of every --sshkey without a prefix' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l ipadd -d 'Add an IPv4 or IPv6 address; repeatable' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l ipdel -d 'Remove an address, or all, before adding; repeatable' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l diskspace -d 'Space of its own files, like 10G; a bare number is KiB' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l diskinodes -d 'Inodes of its own files' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l features -d 'Open or close kernel surfaces: nesting, tun, fuse, netns, keyctl, io_uring, bpf, xfrm, socketcall' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l ids -d 'User and group ids it has, from 0 on: a multiple of 65536, 65536 without it; it can only grow' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l ram -d 'Memory, like 512M: sets physpages to 0:SIZE' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l swap -d 'Swap space, like 1G: sets swappages to 0:SIZE' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l vm_overcommit -d 'Address space of each process, as a factor of RAM and swap; 0: no limit' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l cpuunits -d 'Share of processor time against others, 8..500000; 1000 is normal' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l cpulimit -d 'Processor time in percent of one CPU; 0: no limit' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l cpus -d 'Processor time of N CPUs; 0: all' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l cpumask -d 'Processors to run on, like 0-3,6, or all' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l nodemask -d 'Memory nodes to use, like 0-1, or all' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l ioprio -d 'Share of disk time against others; 4 is normal' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l iolimit -d 'Disk bandwidth a second, of reads and of writes each; a bare number is MB; 0: no limit' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l iopslimit -d 'Disk operations a second, of reads and of writes each; 0: no limit' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l kmemsize -d 'In bytes, accounted; nothing of its own: it is part of what physpages limits' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l lockedpages -d 'In pages, per-process; limit: RLIMIT_MEMLOCK of every process' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l privvmpages -d 'In pages, per-process; limit: RLIMIT_AS of every process; without it vm_overcommit times (physpages + swappages)' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l shmpages -d 'In pages, enforced; limit: kernel.shmall of the container\'s ipc namespace and the size of its /dev/shm' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l numproc -d 'In items, enforced; limit: pids.max (processes and threads)' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l physpages -d 'In pages, enforced; limit: memory.max; a barrier above 0 and below the limit: memory.high. Barrier 0 is unset' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l vmguarpages -d 'In pages, guaranteed; barrier: memory.low' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l oomguarpages -d 'In pages, guaranteed; barrier: memory.min' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l numtcpsock -d 'In items, enforced; limit: a cgroup BPF program that counts TCP sockets from socket(2) or accept to release' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l numflock -d 'In items, accounted; nothing: the kernel has no limit of its own' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l numpty -d 'In items, enforced; limit: max= of the container\'s /dev/pts' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l numsiginfo -d 'In items, enforced; limit: RLIMIT_SIGPENDING of the container\'s user namespace, counted for all of it' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l tcpsndbuf -d 'In bytes, per-process; limit: the maximum in net.ipv4.tcp_wmem of the container\'s network' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l tcprcvbuf -d 'In bytes, per-process; limit: the maximum in net.ipv4.tcp_rmem of the container\'s network' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l othersockbuf -d 'In bytes, accounted; nothing of its own: it is part of what physpages limits' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l dgramrcvbuf -d 'In bytes, accounted; nothing of its own: it is part of what physpages limits' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l numothersock -d 'In items, enforced; limit: the same program, for UDP, raw and ICMP sockets' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l dcachesize -d 'In bytes, accounted; nothing of its own: it is part of what physpages limits' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l numfile -d 'In items, per-process; limit: RLIMIT_NOFILE of every process' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l numiptent -d 'In items, accounted; nothing: the kernel has no limit of its own' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l swappages -d 'In pages, enforced; limit: memory.swap.max' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l applyconfig -d 'Take limits from a sample configuration first (`vzctl samples`), and disk space where it has more' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l setmode -d 'What a running CT cannot change: restart it, or ignore the running one' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l reset_ub -d 'Forget maxheld and failcnt of every beancounter'
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l save -d 'Write the change to the CT\'s configuration too'
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand set" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand list" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand list" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand list" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand list" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand list" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand list" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand operations" -l template -d 'Only of this OS template' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand operations" -l limit -d 'The newest so many, 1..10000' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand operations" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand operations" -l open -d 'Only those that have not ended'
complete -c vzctl -n "__fish_vzctl_using_subcommand operations" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand operations" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand operations" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand operations" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand operations" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand operations" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand wait" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand wait" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand wait" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand wait" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand wait" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand wait" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand wait" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand cancel" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand cancel" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand cancel" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand cancel" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand cancel" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand cancel" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand cancel" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand history" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand history" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand history" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand history" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand history" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand history" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand history" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand why" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand why" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand why" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand why" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand why" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand why" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand why" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand events" -l after -d 'Only those with a higher number' -r
complete -c vzctl -n "__fish_vzctl_using_subcommand events" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand events" -s a -l all -d 'Changes of state too: created, started, booted, rebooted, stopped, crashed, changed, destroyed, found'
complete -c vzctl -n "__fish_vzctl_using_subcommand events" -s f -l follow -d 'Go on with those to come'
complete -c vzctl -n "__fish_vzctl_using_subcommand events" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand events" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand events" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand events" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand events" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand events" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand metrics" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand metrics" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand metrics" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand metrics" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand metrics" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand metrics" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand metrics" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand samples" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand samples" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand samples" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand samples" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand samples" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand samples" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand samples" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand check" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand check" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand check" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand check" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand check" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand check" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand check" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand recover" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand recover" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand recover" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand recover" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand recover" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand recover" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand recover" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand version" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand version" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand version" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand version" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand version" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand version" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand version" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand completion" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand completion" -l vzlist -d 'The one of vzlist'
complete -c vzctl -n "__fish_vzctl_using_subcommand completion" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand completion" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand completion" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand completion" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand completion" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand completion" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand man" -l root -d 'Root of the manager to talk to' -r -F
complete -c vzctl -n "__fish_vzctl_using_subcommand man" -l quiet -d 'Print errors and asked-for data only'
complete -c vzctl -n "__fish_vzctl_using_subcommand man" -l verbose -d 'Print each step with its time'
complete -c vzctl -n "__fish_vzctl_using_subcommand man" -l skiplock -d 'Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped'
complete -c vzctl -n "__fish_vzctl_using_subcommand man" -l background -d 'Do not wait for the change: print the number of its operation, and exit'
complete -c vzctl -n "__fish_vzctl_using_subcommand man" -l json -d 'Answer in JSON on standard output; errors too, beside their message on standard error'
complete -c vzctl -n "__fish_vzctl_using_subcommand man" -s h -l help -d 'Print help'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "template" -d 'Build, list, show and remove OS templates'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "create" -d 'Make a CT from an OS template'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "start" -d 'Boot a CT'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "stop" -d 'Shut a CT down, and kill what is left at the timeout'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "restart" -d 'Stop a CT if it runs, then start it'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "destroy" -d 'Remove a CT and its files; its configuration stays as CTID.toml.destroyed'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "status" -d 'Say in one line whether a CT exists, is mounted and runs'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "exec" -d 'Run a shell command in a CT; any failure exits 8'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "exec2" -d 'Run a shell command in a CT and exit with its own status'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "enter" -d 'Open a root shell in a CT: on a terminal of its own where ours is one, else with our input to its end'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "console" -d 'Join a CT\'s console; `Esc .` leaves it'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "runscript" -d 'Run a script of the host in a CT; one that does not run is started for it and stopped again'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "mount" -d 'Show a stopped CT\'s files on the host'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "umount" -d 'Hide them again'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "set" -d 'Change a CT, running or not'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "list" -d 'List CTs (the same as vzlist)'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "operations" -d 'List operations: what is under way, and what was done'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "wait" -d 'Wait until an operation has ended, and exit as it would have'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "cancel" -d 'Ask an operation to end, and wait until what it has done is taken back'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "history" -d 'List who did what to a CT and when, oldest first; also of one that was destroyed'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "why" -d 'Say what was refused to a CT because of limits, when, and what to change'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "events" -d 'List what happened to CTs because of limits, oldest first'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "metrics" -d 'Print figures of all running CTs in Prometheus\' text format'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "samples" -d 'List the sample configurations, or print one'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "check" -d 'Say what this host can and cannot do, with the remedy for each gap'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "recover" -d 'Build a lost inventory anew from configuration files and private areas, while vzd is stopped'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "version" -d 'Print the versions of vzctl and of the running vzd'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "completion" -d 'Print the completion script of a shell'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "man" -d 'Write man pages, completions and cli.md below DIR, as they lie in the checkout'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and not __fish_seen_subcommand_from template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and __fish_seen_subcommand_from template" -f -a "build" -d 'Build an OS template from its recipe'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and __fish_seen_subcommand_from template" -f -a "import" -d 'Make an OS template from a root filesystem in a tar archive, made by whatever means'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and __fish_seen_subcommand_from template" -f -a "list" -d 'List the OS templates, built, imported or buildable'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and __fish_seen_subcommand_from template" -f -a "show" -d 'Show one OS template with its packages'
complete -c vzctl -n "__fish_vzctl_using_subcommand help; and __fish_seen_subcommand_from template" -f -a "remove" -d 'Remove an OS template no CT was made from'
