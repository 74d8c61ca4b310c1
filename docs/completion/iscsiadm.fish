# fish completion for iscsiadm
#
# To be put into /usr/share/fish/vendor_completions.d.

# __iscsiadm_mode prints the mode that is on the command line.
function __iscsiadm_mode
    set -l words (commandline -opc)
    for i in (seq (count $words))
        switch $words[$i]
            case -m --mode
                test $i -lt (count $words); and echo $words[(math $i + 1)]
            case '-m?*'
                string replace -- -m '' $words[$i]
            case '--mode=*'
                string replace -- --mode= '' $words[$i]
        end
    end
end

# __iscsiadm_takes says whether the mode takes the option of a letter.
function __iscsiadm_takes
    set -l letters mkdhV0
    switch (__iscsiadm_mode)
        case discovery
            set letters DSIPdmntplov0
        case discoverydb
            set letters DSIPdmntplov0
        case node
            set letters RsPIdmlSonvupTULW0
        case session
            set letters PiRdrmusonSv0123
        case host
            set letters CHdmPotnvxA0
        case iface
            set letters HIdnvmPoCabci0
        case fw
            set letters dmlWnv0
        case nodedb
            set letters mdo0
    end
    string match -q -- "*$argv[1]*" $letters
end

function __iscsiadm_targets
    iscsiadm -m node 2>/dev/null | string split -f 2 ' ' | sort -u
end

function __iscsiadm_portals
    iscsiadm -m node 2>/dev/null | string split -f 1 , | sort -u
    iscsiadm -m discoverydb 2>/dev/null | string split -f 1 ' '
end

function __iscsiadm_ifaces
    iscsiadm -m iface 2>/dev/null | string split -f 1 ' '
end

function __iscsiadm_sids
    iscsiadm -m session 2>/dev/null | string match -rg '\[(\d+)\]'
end

function __iscsiadm_fields
    if test (__iscsiadm_mode) = iface
        iscsiadm -m iface -I default 2>/dev/null | string match -rg '^(\S+) = '
    else
        iscsiadm -m node -T (__iscsiadm_targets)[1] 2>/dev/null | string match -rg '^(\S+) = ' | sort -u
    end
end

complete -c iscsiadm -f
complete -c iscsiadm -n 'test (count (commandline -opc)) -eq 1' -a doctor -d 'check whether this machine is fit for iSCSI'
complete -c iscsiadm -n 'test (count (commandline -opc)) -eq 1' -a log -d 'show or change how much iscsid logs'
complete -c iscsiadm -n '__fish_seen_subcommand_from log' -a 'error warn info debug'
complete -c iscsiadm -n '__fish_seen_subcommand_from doctor' -l timeout -x -d 'time for each portal'
complete -c iscsiadm -n 'test (__iscsiadm_mode)x = nodedbx' -a '(__fish_complete_directories)'
complete -c iscsiadm -n '__iscsiadm_takes m' -s m -l mode -x -a 'discovery discoverydb node session host iface fw nodedb' -d 'mode of operation'
complete -c iscsiadm -n '__iscsiadm_takes p' -s p -l portal -x -a '(__iscsiadm_portals)' -d 'portal'
complete -c iscsiadm -n '__iscsiadm_takes T' -s T -l targetname -x -a '(__iscsiadm_targets)' -d 'target name'
complete -c iscsiadm -n '__iscsiadm_takes I' -s I -l interface -x -a '(__iscsiadm_ifaces)' -d 'iface to bind to'
complete -c iscsiadm -n '__iscsiadm_takes o' -s o -l op -x -a 'new delete update show nonpersistent import export' -d 'database operation'
complete -c iscsiadm -n '__iscsiadm_takes t' -s t -l type -x -a 'sendtargets isns fw' -d 'discovery type'
complete -c iscsiadm -n '__iscsiadm_takes n' -s n -l name -x -a '(__iscsiadm_fields)' -d 'record field'
complete -c iscsiadm -n '__iscsiadm_takes v' -s v -l value -x -d 'value for the field'
complete -c iscsiadm -n '__iscsiadm_takes H' -s H -l host -x -d 'SCSI host'
complete -c iscsiadm -n '__iscsiadm_takes r' -s r -l sid -x -a '(__iscsiadm_sids)' -d 'session id or path ending in session<id>'
complete -c iscsiadm -n '__iscsiadm_takes R' -s R -l rescan -d 'rescan sessions'
complete -c iscsiadm -n '__iscsiadm_takes P' -s P -l print -x -a '0 1 2 3 4' -d 'print level'
complete -c iscsiadm -n '__iscsiadm_takes D' -s D -l discover -d 'perform discovery'
complete -c iscsiadm -n '__iscsiadm_takes l' -s l -l login -d 'log in'
complete -c iscsiadm -n '__iscsiadm_takes L' -s L -l loginall -x -a 'all manual automatic onboot' -d 'log in to all records of a startup group'
complete -c iscsiadm -n '__iscsiadm_takes u' -s u -l logout -d 'log out'
complete -c iscsiadm -n '__iscsiadm_takes U' -s U -l logoutall -x -a 'all manual automatic' -d 'log out of all sessions of a startup group'
complete -c iscsiadm -n '__iscsiadm_takes s' -s s -l stats -d 'show session statistics'
complete -c iscsiadm -n '__iscsiadm_takes k' -s k -l killiscsid -x -a 0 -d 'stop iscsid'
complete -c iscsiadm -n '__iscsiadm_takes d' -s d -l debug -x -a '0 1 2 3 4 5 6 7 8' -d 'debug level, 0 to 8'
complete -c iscsiadm -n '__iscsiadm_takes S' -s S -l show -d 'show secrets unmasked'
complete -c iscsiadm -n '__iscsiadm_takes V' -s V -l version -d 'show the version'
complete -c iscsiadm -n '__iscsiadm_takes h' -s h -l help -d 'show this help'
complete -c iscsiadm -n '__iscsiadm_takes C' -s C -l submode -x -a 'ping chap flashnode stats' -d 'ping, chap, flashnode or stats'
complete -c iscsiadm -n '__iscsiadm_takes a' -s a -l ip -x -d 'address to ping'
complete -c iscsiadm -n '__iscsiadm_takes b' -s b -l packetsize -x -d 'ping packet size'
complete -c iscsiadm -n '__iscsiadm_takes c' -s c -l count -x -d 'number of pings'
complete -c iscsiadm -n '__iscsiadm_takes i' -s i -l interval -x -d 'time between pings'
complete -c iscsiadm -n '__iscsiadm_takes x' -s x -l index -x -d 'CHAP table or flashnode index'
complete -c iscsiadm -n '__iscsiadm_takes A' -s A -l portal_type -x -a 'ipv4 ipv6' -d 'flashnode portal type'
complete -c iscsiadm -n '__iscsiadm_takes W' -s W -l no_wait -d 'do not wait for logins'
complete -c iscsiadm -n '__iscsiadm_takes 0' -l json -d 'print JSON'
complete -c iscsiadm -n '__iscsiadm_takes 1' -l watch -d 'show statistics anew every --interval seconds'
complete -c iscsiadm -n '__iscsiadm_takes 2' -l trace -r -F -d 'write the PDUs of a session to a file for Wireshark'
complete -c iscsiadm -n '__iscsiadm_takes 3' -l duration -x -d 'how long to trace'
