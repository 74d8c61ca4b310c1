# bash completion for iscsiadm
#
# To be sourced, or put into /usr/share/bash-completion/completions/iscsiadm.

# _iscsiadm_letters prints the letters of the options that a mode takes; digits
# stand for options that have none.
_iscsiadm_letters() {
	case $1 in
	discovery) echo DSIPdmntplov0 ;;
	discoverydb) echo DSIPdmntplov0 ;;
	node) echo RsPIdmlSonvupTULW0 ;;
	session) echo PiRdrmusonSv0123 ;;
	host) echo CHdmPotnvxA0 ;;
	iface) echo HIdnvmPoCabci0 ;;
	fw) echo dmlWnv0 ;;
	nodedb) echo mdo0 ;;
	*) echo mkdhV0 ;;
	esac
}

# _iscsiadm_long prints the long option for a letter.
_iscsiadm_long() {
	case $1 in
	m) echo --mode ;;
	p) echo --portal ;;
	T) echo --targetname ;;
	I) echo --interface ;;
	o) echo --op ;;
	t) echo --type ;;
	n) echo --name ;;
	v) echo --value ;;
	H) echo --host ;;
	r) echo --sid ;;
	R) echo --rescan ;;
	P) echo --print ;;
	D) echo --discover ;;
	l) echo --login ;;
	L) echo --loginall ;;
	u) echo --logout ;;
	U) echo --logoutall ;;
	s) echo --stats ;;
	k) echo --killiscsid ;;
	d) echo --debug ;;
	S) echo --show ;;
	V) echo --version ;;
	h) echo --help ;;
	C) echo --submode ;;
	a) echo --ip ;;
	b) echo --packetsize ;;
	c) echo --count ;;
	i) echo --interval ;;
	x) echo --index ;;
	A) echo --portal_type ;;
	W) echo --no_wait ;;
	0) echo --json ;;
	1) echo --watch ;;
	2) echo --trace ;;
	3) echo --duration ;;
	esac
}

# _iscsiadm_values prints what an option takes, given its name and the mode.
_iscsiadm_values() {
	case $1 in
	-m | --mode) echo discovery discoverydb node session host iface fw nodedb ;;
	-t | --type) echo sendtargets isns fw ;;
	-o | --op) [[ $2 == nodedb ]] && echo import export update || echo new delete update show nonpersistent ;;
	-L | --loginall) echo all manual automatic onboot ;;
	-U | --logoutall) echo all manual automatic ;;
	-P | --print) echo 0 1 2 3 4 ;;
	-C | --submode) echo ping chap flashnode stats ;;
	-A | --portal_type) echo ipv4 ipv6 ;;
	-k | --killiscsid) echo 0 ;;
	-T | --targetname) iscsiadm -m node 2>/dev/null | cut -d ' ' -f 2 | sort -u ;;
	-p | --portal)
		iscsiadm -m node 2>/dev/null | cut -d , -f 1 | sort -u
		iscsiadm -m discoverydb 2>/dev/null | cut -d ' ' -f 1
		;;
	-I | --interface) iscsiadm -m iface 2>/dev/null | cut -d ' ' -f 1 ;;
	-r | --sid) iscsiadm -m session 2>/dev/null | sed 's/.*\[\([0-9]*\)\].*/\1/' ;;
	-H | --host) iscsiadm -m host 2>/dev/null | sed 's/.*: \[\([0-9]*\)\].*/\1/' ;;
	-n | --name)
		case $2 in
		iface) iscsiadm -m iface -I default 2>/dev/null | sed -n 's/ = .*//p' ;;
		discoverydb) iscsiadm -m discoverydb 2>/dev/null | sed -n 's/^\(.*\) via \(.*\)/-t \2 -p \1/p' | head -n 1 |
			xargs -r iscsiadm -m discoverydb 2>/dev/null | sed -n 's/ = .*//p' ;;
		*) iscsiadm -m node -T "$(_iscsiadm_values -T | head -n 1)" 2>/dev/null | sed -n 's/ = .*//p' | sort -u ;;
		esac
		;;
	esac
}

_iscsiadm() {
	local cur prev mode= word i letters words=()
	# Bash splits words at colons and equals signs; names and portals have
	# colons, so the current word is put together again.
	local line=${COMP_LINE:0:COMP_POINT}
	cur=${line##* }
	for word in $line; do words+=("$word"); done
	[[ $line == *' ' ]] && words+=('')
	prev=${words[${#words[@]} - 2]}
	for ((i = 1; i < ${#words[@]} - 1; i++)); do
		case ${words[i]} in
		-m | --mode) mode=${words[i + 1]} ;;
		-m?*) mode=${words[i]#-m} ;;
		--mode=*) mode=${words[i]#--mode=} ;;
		esac
	done

	local candidates
	# Commands of ours that have a word of their own.
	case ${words[1]} in
	doctor) candidates='--json --timeout' ;;
	log) candidates='error warn info debug' ;;
	esac
	if [[ -n $candidates && ${#words[@]} -gt 2 ]]; then
		:
	elif [[ $cur == --*=* ]]; then
		candidates=$(_iscsiadm_values "${cur%%=*}" "$mode")
		cur=${cur#*=}
	elif candidates=$(_iscsiadm_values "$prev" "$mode") && [[ -n $candidates ]]; then
		:
	else
		letters=$(_iscsiadm_letters "$mode")
		candidates=
		for ((i = 0; i < ${#letters}; i++)); do
			candidates+=" $(_iscsiadm_long "${letters:i:1}")"
			[[ ${letters:i:1} != [0-9] ]] && candidates+=" -${letters:i:1}"
		done
		[[ ${#words[@]} -eq 2 ]] && candidates+=' doctor log'
	fi
	# Not by compgen -W, which expands its words: names of targets come from
	# the network. For the same reason they are quoted.
	COMPREPLY=()
	while read -r word; do
		[[ -n $word && $word == "$cur"* ]] && COMPREPLY+=("$(printf %q "$word")")
	done < <(tr -s ' ' '\n' <<<"$candidates")
	# Leave out what bash takes for words before the last colon.
	if [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then
		local before=${cur%"${cur##*:}"}
		for i in "${!COMPREPLY[@]}"; do COMPREPLY[i]=${COMPREPLY[i]#"$before"}; done
	fi
}

complete -F _iscsiadm iscsiadm
