"""One module for each command of `maildefer`: its options, and calls into maildefer.control and the queue.

new            writes a project                          start, log      a front end or receiver in the background
supervise      becomes the supervisor                    stop            stops processes
status, probe  what runs, and how it is                  pause, reload   pauses, resumes, reloads
push           puts messages into a queue                queue, dead     entries and dead letters
sendmail, send a drop-in for sendmail(8); an SMTP client queue_legacy    Salmon's options of `queue`
mailboxes      `cleanse` and `blast`                     passwd          the password file
audit, doctor  proofs and checks                         routes          the table of routes
permissions    rights of a front end of another user     periodic        tasks with a schedule
outgoing       destinations of mail                      man             manual pages
web            the page that shows what runs             top             the same on a terminal
explain        what has happened to a message            replay          handles kept messages again
"""
