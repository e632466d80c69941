# Verifies messages from standard input: lines "name text" of TXT records, an empty
# line, then each message after a line with its length. Prints a line for each.
use strict;
use warnings;
use Mail::DKIM::Verifier;
use Net::DNS;

binmode STDIN;
my %records;
while (my $line = <STDIN>) {
    chomp $line;
    last if $line eq "";
    my ($name, $text) = split / /, $line, 2;
    $records{$name} = $text;
}

no warnings "redefine";
*Mail::DKIM::DNS::query = sub {
    my ($name) = @_;
    my $text = $records{$name};
    return unless defined $text;
    return Net::DNS::RR->new(owner => $name, type => "TXT", txtdata => [$text =~ /(.{1,255})/g]);
};

while (my $length = <STDIN>) {
    my $message = "";
    read STDIN, $message, $length if $length > 0;
    my $line = eval {
        my $verifier = Mail::DKIM::Verifier->new();
        $verifier->PRINT($1) while $message =~ /\G([^\n]*\n|[^\n]+)/g;
        $verifier->CLOSE;
        join "\t", map { $_->result eq "pass" ? "pass" : $_->result_detail } $verifier->signatures;
    };
    $line = "died: $@" unless defined $line;
    $line =~ s/\n/ /g;
    print "$line\n";
}
