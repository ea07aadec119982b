# Postfix as in postfix.sh, with postfix-mta-sts-resolver as its TLS policy map: the
# line of main.cf that its README gives, and its defaults, with the cache in memory.
set -eu
cat >"$DIR/mta-sts-daemon.yml" <<END
host: 127.0.0.1
port: 8461
cache:
  type: internal
END
HOME=$DIR setpriv --reuid=nobody --regid=nogroup --clear-groups mta-sts-daemon -c "$DIR/mta-sts-daemon.yml" &
MAIN='smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8461:postfix'
. "$DIR/postfix.sh"
