complete -c vzlist -s o -l output -d 'Print these fields' -r
complete -c vzlist -s s -l sort -d 'Sort by this field; with a - before it, the other way round' -r
complete -c vzlist -s h -l hostname -d 'Only those whose host name matches this pattern (* ? [])' -r
complete -c vzlist -s N -l name_filter -d 'Only those whose name matches this pattern' -r
complete -c vzlist -s d -l description -d 'Only those whose description matches this pattern' -r
complete -c vzlist -l root -d 'Root of the manager to talk to' -r -F
complete -c vzlist -s a -l all -d 'List all CTs, not only the running ones'
complete -c vzlist -s S -l stopped -d 'List the stopped ones only'
complete -c vzlist -s n -l name -d 'Show the CT\'s name instead of its host name'
complete -c vzlist -s H -l no-header -d 'Print no header'
complete -c vzlist -s t -l no-trim -d 'Do not cut long values'
complete -c vzlist -s j -l json -d 'Print JSON'
complete -c vzlist -s 1 -d 'Print the CTIDs only: the same as -H -octid'
complete -c vzlist -s L -l list -d 'List the fields there are'
complete -c vzlist -l help -d 'Print help'
complete -c vzlist -s V -l version -d 'Print version'
