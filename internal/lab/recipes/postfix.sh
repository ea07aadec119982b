# Postfix with Debian's master.cf, DANE set up as its TLS_README says, and a
# queue that is run every few seconds. MAIN adds a TLS policy map.
set -eu
mkdir "$DIR/conf" "$DIR/queue" "$DIR/data"
chown postfix "$DIR/data"
cp /usr/share/postfix/master.cf.dist "$DIR/conf/master.cf"
cat >"$DIR/conf/main.cf" <<END
compatibility_level = 3.6
queue_directory = $DIR/queue
data_directory = $DIR/data
maillog_file = /dev/stdout
myhostname = mail.sender.test
mydestination =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
notify_classes =
smtp_tls_loglevel = 1
smtp_dns_support_level = dnssec
smtp_tls_security_level = dane

# Quick, so that the lab need not wait.
queue_run_delay = 3s
minimal_backoff_time = 3s
maximal_backoff_time = 3s
smtp_connect_timeout = 5s
smtp_helo_timeout = 5s
smtp_starttls_timeout = 5s

${MAIN:-}
smtp_tls_CAfile = $CA
END
postconf -c "$DIR/conf" -F '*/*/chroot = n'
postconf -c "$DIR/conf" -M "smtp/inet=127.0.0.1:$LISTEN inet n - n - - smtpd"
postfix -c "$DIR/conf" check # makes the queue's folders
exec "$(postconf -h daemon_directory)/master" -c "$DIR/conf" -s
