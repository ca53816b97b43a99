// Copyright (c) The Fulmar Authors
// SPDX-License-Identifier: Apache-2.0

package rest

// Code names a class of errors: FLT, the area in two digits, a number in two. The
// areas 10 to 19 are the fleet's, those below 10 the command line's. A code is stable:
// words may become better, a code is never given to another class.
type Code string

// The codes of the fleet.
const (
	CodeNotLoggedIn  Code = "FLT1001"
	CodeNotAllowed   Code = "FLT1002"
	CodeNoRoute      Code = "FLT1003"
	CodeNotFound     Code = "FLT1004"
	CodeMethod       Code = "FLT1005"
	CodeParameter    Code = "FLT1006"
	CodeBody         Code = "FLT1007"
	CodeTooLarge     Code = "FLT1008"
	CodeMediaType    Code = "FLT1009"
	CodeTooMany      Code = "FLT1010"
	CodeBusy         Code = "FLT1011"
	CodeInternal     Code = "FLT1012"
	CodeSlowRequest  Code = "FLT1013"
	CodeQuery        Code = "FLT1101"
	CodePageToken    Code = "FLT1102"
	CodeListingOver  Code = "FLT1103"
	CodeLimited      Code = "FLT1104"
	CodeStreams      Code = "FLT1105"
	CodeNoIfMatch    Code = "FLT1201"
	CodeStale        Code = "FLT1202"
	CodeKeyReused    Code = "FLT1203"
	CodeKeyInFlight  Code = "FLT1204"
	CodeKeySpent     Code = "FLT1205"
	CodeKeysFull     Code = "FLT1206"
	CodeConfirm      Code = "FLT1207"
	CodeRefused      Code = "FLT1208"
	CodeConflict     Code = "FLT1209"
	CodeFull         Code = "FLT1210"
	CodeElsewhere    Code = "FLT1301"
	CodeOperations   Code = "FLT1302"
	CodeTargetEmpty  Code = "FLT1401"
	CodeSecondPerson Code = "FLT1402"
	CodeTwinKey      Code = "FLT1501"
	CodeNoConflict   Code = "FLT1502"
	CodeCommandSame  Code = "FLT1601"
	CodeCommandForm  Code = "FLT1602"
	CodeCommandsOpen Code = "FLT1603"
)

// CodeRow is what is known of a class of errors.
type CodeRow struct {
	Code   Code
	Status int    // of HTTP
	Title  string // what happened: the title of the problem
	Why    string // what it comes from
	Do     string // what to do
}

// Codes gives the table of the fleet's errors, in the order of their codes.
func Codes() []CodeRow {
	rows := append(requestCodes(), listingCodes()...)
	rows = append(rows, changeCodes()...)
	rows = append(rows, partCodes()...)
	rows = append(rows, twinCodes()...)
	return append(rows, commandCodes()...)
}

// Row gives the row of a code; that of [CodeInternal] for an unknown one.
func (c Code) Row() CodeRow {
	rows := Codes()
	other := 0
	for i := range rows {
		switch rows[i].Code {
		case c:
			return rows[i]
		case CodeInternal:
			other = i
		}
	}
	return rows[other]
}

// Type is the type of a problem of this code (RFC 9457).
func (c Code) Type() string { return "urn:fulmar:problem:" + string(c) }

func requestCodes() []CodeRow {
	return []CodeRow{
		{CodeNotLoggedIn, 401, "Log in, or send an API token", "The request has no session and no token, or what it has is wrong, has ended or was revoked.", "send Authorization: Bearer TOKEN; fulmar-fleet api-token makes one"},
		{CodeNotAllowed, 403, "This token or session may not do that", "The role of the user, or the rights of the token, do not hold the right that the route wants.", "docs/api.md lists the right of each route; an admin gives roles and makes tokens"},
		{CodeNoRoute, 404, "There is nothing here", "No route of the API has this path.", "GET /api/v1/openapi.json describes all routes"},
		{CodeNotFound, 404, "There is no such thing, or no longer", "The board, rollout, user or other thing of the path is not there, or not among what the caller may see.", "list the collection above it; a token with a limit sees its boards alone"},
		{CodeMethod, 405, "This path does not take that method", "The path is right, the method is not.", "the header Allow of the answer names the methods"},
		{CodeParameter, 400, "A parameter is not as it should be", "One of query or header is unknown, is given twice, or its value is out of its range.", "errors names the parameter and what it takes"},
		{CodeBody, 400, "The body is not as it should be", "It is no JSON, a field is unknown or missing, or a value is out of its range.", "errors points at the field and says what it takes"},
		{CodeTooLarge, 413, "The request is too large", "The body or the address is over its bound.", "send less at once"},
		{CodeMediaType, 415, "The body has a media type that is not taken", "The header Content-Type names something else than JSON.", "send Content-Type: application/json"},
		{CodeTooMany, 429, "Too many requests", "This caller, or this address, has used up its share.", "wait as many seconds as Retry-After says; RateLimit-Remaining tells what is left"},
		{CodeBusy, 503, "The fleet is busy", "As many requests are under way as the server does at one time.", "try again after Retry-After"},
		{CodeInternal, 500, "The fleet could not answer; see its log", "A fault of the server or of its disk. The log has it under the request_id of this answer.", "look into the server's log; nothing is lost by asking again"},
		{CodeSlowRequest, 503, "The fleet took too long", "The answer was not ready in the time that a request has.", "ask for less: a narrower query, a shorter time, fewer points"},
	}
}

func listingCodes() []CodeRow {
	return []CodeRow{
		{CodeQuery, 400, "The query is not understood", "Its words do not make a query; errors says at which column.", "GET /api/v1/query/check tells what a query matches and what could have been meant"},
		{CodePageToken, 400, "This page_token is not of this listing", "It was cut, or q, sort or the caller changed since the first page.", "begin again without page_token"},
		{CodeListingOver, 410, "The listing that this page_token goes on with has ended", "An ordered listing is kept for some minutes, and at most 16 are kept at one time.", "begin again without page_token, or sort by name, which never ends"},
		{CodeLimited, 403, "A token that is limited to some boards may not ask for this", "What was asked for tells of all boards, and cannot be narrowed to some.", "use a token without a limit"},
		{CodeStreams, 429, "Too many streams are open", "The server keeps 256 streams at one time, and 16 of one caller.", "close one, or ask less often instead"},
	}
}

func changeCodes() []CodeRow {
	return []CodeRow{
		{CodeNoIfMatch, 428, "This change wants If-Match", "Without it two people overwrite each other's changes and do not notice.", "GET it first, and send its ETag as If-Match"},
		{CodeStale, 412, "Somebody changed it meanwhile", "The version of If-Match is not the present one.", "GET it again, look at what changed, and send the new ETag"},
		{CodeKeyReused, 422, "This Idempotency-Key was used for another request", "A key stands for one request: path and body have to be the same.", "make a new key for a new request"},
		{CodeKeyInFlight, 409, "The request with this Idempotency-Key is still under way", "It came twice and the first has not ended.", "wait a moment and send it again with the same key"},
		{CodeKeySpent, 409, "The request with this Idempotency-Key came through before; its answer is not told again", "Its answer held a secret, was too long to keep, or the server ended while it was at it.", "look whether the change is there; if not, send it with a new key"},
		{CodeKeysFull, 429, "Too many Idempotency-Keys", "The server keeps 1,000 keys of one caller, for 24 hours.", "wait, or leave the header out where a repetition does no harm"},
		{CodeConfirm, 400, "This removes data for good and wants its name once more", "confirm is missing or is another name.", "add confirm=NAME to the address"},
		{CodeRefused, 422, "It was refused as it stands", "What was asked for is well-formed and does not hold together; detail says why.", "change what detail names"},
		{CodeConflict, 409, "It cannot be done in the present state", "Detail says what stands against it.", "GET it, and see what may be done now"},
		{CodeFull, 507, "The server keeps no more of these", "A bound on what is kept is reached; detail says which.", "remove what is not needed any more"},
	}
}

func partCodes() []CodeRow {
	return []CodeRow{
		{CodeElsewhere, 409, "Its TPM or key is that of a board with another name; wipe that one first, then this one may ask again", "One TPM is one board.", "DELETE the other board, then let this one ask again"},
		{CodeOperations, 429, "Too many operations are under way", "The server does 16 long changes at one time.", "wait until one has ended: GET /api/v1/operations/ID"},
		{CodeTargetEmpty, 422, "The target has no boards", "No board that the caller may see matches the query.", "GET /api/v1/query/check tells how many match and what could have been meant"},
		{CodeSecondPerson, 403, "A second person has to approve it", "Nobody approves what they planned, nor by a token of theirs.", "ask somebody else with the right rollouts:approve"},
	}
}

func twinCodes() []CodeRow {
	return []CodeRow{
		{CodeTwinKey, 422, "A twin cannot hold this", "A key has no name of a key, its value is none that a board takes, or there is no room for it; detail says which.", "correct what detail names; docs/twin.md lists the keys"},
		{CodeNoConflict, 409, "The key is not in conflict", "Somebody has decided it, or it never was.", "GET /api/v1/conflicts lists what is to be decided"},
	}
}

func commandCodes() []CodeRow {
	return []CodeRow{
		{CodeCommandSame, 403, "A second person has to decide about this command", "Nobody agrees to a command that they gave themselves, nor by a token of theirs.", "ask somebody else with the right commands:approve"},
		{CodeCommandForm, 422, "The command is not as it should be", "Its name, arguments, time or boards are not what a command takes; errors says which.", "GET /api/v1/commands/kinds lists the commands that boards have"},
		{CodeCommandsOpen, 507, "Too many commands are not settled", "The server keeps 200,000 commands open, counted for each board, and 256 of one board.", "wait until some are settled, or cancel some: GET /api/v1/commands?state=queued"},
	}
}
