_vzctl() {
    local i cur prev opts cmd
    COMPREPLY=()
    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
        cur="$2"
    else
        cur="${COMP_WORDS[COMP_CWORD]}"
    fi
    prev="$3"
    cmd=""
    opts=""

    for i in "${COMP_WORDS[@]:0:COMP_CWORD}"
    do
        case "${cmd},${i}" in
            ",$1")
                cmd="vzctl"
                ;;
            vzctl,cancel)
                cmd="vzctl__subcmd__cancel"
                ;;
            vzctl,check)
                cmd="vzctl__subcmd__check"
                ;;
            vzctl,completion)
                cmd="vzctl__subcmd__completion"
                ;;
            vzctl,console)
                cmd="vzctl__subcmd__console"
                ;;
            vzctl,create)
                cmd="vzctl__subcmd__create"
                ;;
            vzctl,delete)
                cmd="vzctl__subcmd__destroy"
                ;;
            vzctl,destroy)
                cmd="vzctl__subcmd__destroy"
                ;;
            vzctl,enter)
                cmd="vzctl__subcmd__enter"
                ;;
            vzctl,events)
                cmd="vzctl__subcmd__events"
                ;;
            vzctl,exec)
                cmd="vzctl__subcmd__exec"
                ;;
            vzctl,exec2)
                cmd="vzctl__subcmd__exec2"
                ;;
            vzctl,help)
                cmd="vzctl__subcmd__help"
                ;;
            vzctl,history)
                cmd="vzctl__subcmd__history"
                ;;
            vzctl,list)
                cmd="vzctl__subcmd__list"
                ;;
            vzctl,man)
                cmd="vzctl__subcmd__man"
                ;;
            vzctl,metrics)
                cmd="vzctl__subcmd__metrics"
                ;;
            vzctl,mount)
                cmd="vzctl__subcmd__mount"
                ;;
            vzctl,operations)
                cmd="vzctl__subcmd__operations"
                ;;
            vzctl,recover)
                cmd="vzctl__subcmd__recover"
                ;;
            vzctl,restart)
                cmd="vzctl__subcmd__restart"
                ;;
            vzctl,runscript)
                cmd="vzctl__subcmd__runscript"
                ;;
            vzctl,samples)
                cmd="vzctl__subcmd__samples"
                ;;
            vzctl,set)
                cmd="vzctl__subcmd__set"
                ;;
            vzctl,start)
                cmd="vzctl__subcmd__start"
                ;;
            vzctl,status)
                cmd="vzctl__subcmd__status"
                ;;
            vzctl,stop)
                cmd="vzctl__subcmd__stop"
                ;;
            vzctl,template)
                cmd="vzctl__subcmd__template"
                ;;
            vzctl,umount)
                cmd="vzctl__subcmd__umount"
                ;;
            vzctl,version)
                cmd="vzctl__subcmd__version"
                ;;
            vzctl,wait)
                cmd="vzctl__subcmd__wait"
                ;;
            vzctl,why)
                cmd="vzctl__subcmd__why"
                ;;
            vzctl__subcmd__help,cancel)
                cmd="vzctl__subcmd__help__subcmd__cancel"
                ;;
            vzctl__subcmd__help,check)
                cmd="vzctl__subcmd__help__subcmd__check"
                ;;
            vzctl__subcmd__help,completion)
                cmd="vzctl__subcmd__help__subcmd__completion"
                ;;
            vzctl__subcmd__help,console)
                cmd="vzctl__subcmd__help__subcmd__console"
                ;;
            vzctl__subcmd__help,create)
                cmd="vzctl__subcmd__help__subcmd__create"
                ;;
            vzctl__subcmd__help,destroy)
                cmd="vzctl__subcmd__help__subcmd__destroy"
                ;;
            vzctl__subcmd__help,enter)
                cmd="vzctl__subcmd__help__subcmd__enter"
                ;;
            vzctl__subcmd__help,events)
                cmd="vzctl__subcmd__help__subcmd__events"
                ;;
            vzctl__subcmd__help,exec)
                cmd="vzctl__subcmd__help__subcmd__exec"
                ;;
            vzctl__subcmd__help,exec2)
                cmd="vzctl__subcmd__help__subcmd__exec2"
                ;;
            vzctl__subcmd__help,help)
                cmd="vzctl__subcmd__help__subcmd__help"
                ;;
            vzctl__subcmd__help,history)
                cmd="vzctl__subcmd__help__subcmd__history"
                ;;
            vzctl__subcmd__help,list)
                cmd="vzctl__subcmd__help__subcmd__list"
                ;;
            vzctl__subcmd__help,man)
                cmd="vzctl__subcmd__help__subcmd__man"
                ;;
            vzctl__subcmd__help,metrics)
                cmd="vzctl__subcmd__help__subcmd__metrics"
                ;;
            vzctl__subcmd__help,mount)
                cmd="vzctl__subcmd__help__subcmd__mount"
                ;;
            vzctl__subcmd__help,operations)
                cmd="vzctl__subcmd__help__subcmd__operations"
                ;;
            vzctl__subcmd__help,recover)
                cmd="vzctl__subcmd__help__subcmd__recover"
                ;;
            vzctl__subcmd__help,restart)
                cmd="vzctl__subcmd__help__subcmd__restart"
                ;;
            vzctl__subcmd__help,runscript)
                cmd="vzctl__subcmd__help__subcmd__runscript"
                ;;
            vzctl__subcmd__help,samples)
                cmd="vzctl__subcmd__help__subcmd__samples"
                ;;
            vzctl__subcmd__help,set)
                cmd="vzctl__subcmd__help__subcmd__set"
                ;;
            vzctl__subcmd__help,start)
                cmd="vzctl__subcmd__help__subcmd__start"
                ;;
            vzctl__subcmd__help,status)
                cmd="vzctl__subcmd__help__subcmd__status"
                ;;
            vzctl__subcmd__help,stop)
                cmd="vzctl__subcmd__help__subcmd__stop"
                ;;
            vzctl__subcmd__help,template)
                cmd="vzctl__subcmd__help__subcmd__template"
                ;;
            vzctl__subcmd__help,umount)
                cmd="vzctl__subcmd__help__subcmd__umount"
                ;;
            vzctl__subcmd__help,version)
                cmd="vzctl__subcmd__help__subcmd__version"
                ;;
            vzctl__subcmd__help,wait)
                cmd="vzctl__subcmd__help__subcmd__wait"
                ;;
            vzctl__subcmd__help,why)
                cmd="vzctl__subcmd__help__subcmd__why"
                ;;
            vzctl__subcmd__help__subcmd__template,build)
                cmd="vzctl__subcmd__help__subcmd__template__subcmd__build"
                ;;
            vzctl__subcmd__help__subcmd__template,import)
                cmd="vzctl__subcmd__help__subcmd__template__subcmd__import"
                ;;
            vzctl__subcmd__help__subcmd__template,list)
                cmd="vzctl__subcmd__help__subcmd__template__subcmd__list"
                ;;
            vzctl__subcmd__help__subcmd__template,remove)
                cmd="vzctl__subcmd__help__subcmd__template__subcmd__remove"
                ;;
            vzctl__subcmd__help__subcmd__template,show)
                cmd="vzctl__subcmd__help__subcmd__template__subcmd__show"
                ;;
            vzctl__subcmd__template,build)
                cmd="vzctl__subcmd__template__subcmd__build"
                ;;
            vzctl__subcmd__template,help)
                cmd="vzctl__subcmd__template__subcmd__help"
                ;;
            vzctl__subcmd__template,import)
                cmd="vzctl__subcmd__template__subcmd__import"
                ;;
            vzctl__subcmd__template,list)
                cmd="vzctl__subcmd__template__subcmd__list"
                ;;
            vzctl__subcmd__template,remove)
                cmd="vzctl__subcmd__template__subcmd__remove"
                ;;
            vzctl__subcmd__template,show)
                cmd="vzctl__subcmd__template__subcmd__show"
                ;;
            vzctl__subcmd__template__subcmd__help,build)
                cmd="vzctl__subcmd__template__subcmd__help__subcmd__build"
                ;;
            vzctl__subcmd__template__subcmd__help,help)
                cmd="vzctl__subcmd__template__subcmd__help__subcmd__help"
                ;;
            vzctl__subcmd__template__subcmd__help,import)
                cmd="vzctl__subcmd__template__subcmd__help__subcmd__import"
                ;;
            vzctl__subcmd__template__subcmd__help,list)
                cmd="vzctl__subcmd__template__subcmd__help__subcmd__list"
                ;;
            vzctl__subcmd__template__subcmd__help,remove)
                cmd="vzctl__subcmd__template__subcmd__help__subcmd__remove"
                ;;
            vzctl__subcmd__template__subcmd__help,show)
                cmd="vzctl__subcmd__template__subcmd__help__subcmd__show"
                ;;
            *)
                ;;
        esac
    done

    case "${cmd}" in
        vzctl)
            opts="-h -V --quiet --verbose --skiplock --root --background --json --help --version template create start stop restart destroy delete status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 1 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__cancel)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__check)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__completion)
            opts="-h --vzlist --quiet --verbose --skiplock --root --background --json --help bash elvish fish powershell zsh"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__console)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__create)
            opts="-h --ostemplate --config --layout --onboot --bootorder --name --description --disabled --hostname --nameserver --searchdomain --userpasswd --sshkey --sshuser --ipadd --ipdel --diskspace --diskinodes --features --ids --ram --swap --vm_overcommit --cpuunits --cpulimit --cpus --cpumask --nodemask --ioprio --iolimit --iopslimit --kmemsize --lockedpages --privvmpages --shmpages --numproc --physpages --vmguarpages --oomguarpages --numtcpsock --numflock --numpty --numsiginfo --tcpsndbuf --tcprcvbuf --othersockbuf --dgramrcvbuf --numothersock --dcachesize --numfile --numiptent --swappages --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --ostemplate)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --config)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --layout)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --onboot)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --bootorder)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --name)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --description)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --disabled)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --hostname)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nameserver)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --searchdomain)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --userpasswd)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --sshkey)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --sshuser)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --ipadd)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --ipdel)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --diskspace)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --diskinodes)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --features)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --ids)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --ram)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --swap)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --vm_overcommit)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cpuunits)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cpulimit)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cpus)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cpumask)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nodemask)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --ioprio)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --iolimit)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --iopslimit)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --kmemsize)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --lockedpages)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --privvmpages)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --shmpages)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --numproc)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --physpages)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --vmguarpages)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --oomguarpages)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --numtcpsock)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --numflock)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --numpty)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --numsiginfo)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --tcpsndbuf)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --tcprcvbuf)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --othersockbuf)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --dgramrcvbuf)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --numothersock)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --dcachesize)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --numfile)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --numiptent)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --swappages)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__destroy)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__enter)
            opts="-h --exec --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --exec)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__events)
            opts="-a -f -h --all --follow --after --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --after)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__exec)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__exec2)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help)
            opts="template create start stop restart destroy status exec exec2 enter console runscript mount umount set list operations wait cancel history why events metrics samples check recover version completion man help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__cancel)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__check)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__completion)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__console)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__create)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__destroy)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__enter)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__events)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__exec)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__exec2)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__help)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__history)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__list)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__man)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__metrics)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__mount)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__operations)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__recover)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__restart)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__runscript)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__samples)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__set)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__start)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__status)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__stop)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__template)
            opts="build import list show remove"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__template__subcmd__build)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 4 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__template__subcmd__import)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 4 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__template__subcmd__list)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 4 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__template__subcmd__remove)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 4 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__template__subcmd__show)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 4 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__umount)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__version)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__wait)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__help__subcmd__why)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__history)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__list)
            opts="--quiet --verbose --skiplock --root --background --json"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__man)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__metrics)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__mount)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__operations)
            opts="-h --template --open --limit --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --template)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --limit)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__recover)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__restart)
            opts="-h --wait --force --fast --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__runscript)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__samples)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__set)
            opts="-h --onboot --bootorder --name --description --disabled --hostname --nameserver --searchdomain --userpasswd --sshkey --sshuser --ipadd --ipdel --diskspace --diskinodes --features --ids --ram --swap --vm_overcommit --cpuunits --cpulimit --cpus --cpumask --nodemask --ioprio --iolimit --iopslimit --kmemsize --lockedpages --privvmpages --shmpages --numproc --physpages --vmguarpages --oomguarpages --numtcpsock --numflock --numpty --numsiginfo --tcpsndbuf --tcprcvbuf --othersockbuf --dgramrcvbuf --numothersock --dcachesize --numfile --numiptent --swappages --applyconfig --reset_ub --save --setmode --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --onboot)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --bootorder)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --name)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --description)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --disabled)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --hostname)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nameserver)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --searchdomain)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --userpasswd)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --sshkey)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --sshuser)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --ipadd)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --ipdel)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --diskspace)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --diskinodes)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --features)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --ids)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --ram)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --swap)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --vm_overcommit)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cpuunits)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cpulimit)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cpus)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --cpumask)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --nodemask)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --ioprio)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --iolimit)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --iopslimit)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --kmemsize)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --lockedpages)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --privvmpages)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --shmpages)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --numproc)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --physpages)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --vmguarpages)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --oomguarpages)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --numtcpsock)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --numflock)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --numpty)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --numsiginfo)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --tcpsndbuf)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --tcprcvbuf)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --othersockbuf)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --dgramrcvbuf)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --numothersock)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --dcachesize)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --numfile)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --numiptent)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --swappages)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --applyconfig)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --setmode)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__start)
            opts="-h --remembered --wait --force --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__status)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__stop)
            opts="-h --all --remember --fast --timeout --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --timeout)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__template)
            opts="-h --quiet --verbose --skiplock --root --background --json --help build import list show remove help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__template__subcmd__build)
            opts="-h --rebuild --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__template__subcmd__help)
            opts="build import list show remove help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__template__subcmd__help__subcmd__build)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 4 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__template__subcmd__help__subcmd__help)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 4 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__template__subcmd__help__subcmd__import)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 4 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__template__subcmd__help__subcmd__list)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 4 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__template__subcmd__help__subcmd__remove)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 4 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__template__subcmd__help__subcmd__show)
            opts=""
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 4 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__template__subcmd__import)
            opts="-h --name --replace --skip-devices --description --max-size --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --name)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --description)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --max-size)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__template__subcmd__list)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__template__subcmd__remove)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__template__subcmd__show)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 3 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__umount)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__version)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__wait)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
        vzctl__subcmd__why)
            opts="-h --quiet --verbose --skiplock --root --background --json --help"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --root)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
    esac
}

if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -F _vzctl -o nosort -o bashdefault -o default vzctl
else
    complete -F _vzctl -o bashdefault -o default vzctl
fi
