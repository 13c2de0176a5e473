// libsrtp 3's interface, as far as mediasoup calls it, on libsrtp 2.
//
// Two things differ. In libsrtp 3 a policy is an opaque handle that keeps its own copy of the key, and packets go from
// one buffer to another (which may be the same) with lengths of type size_t. libsrtp 2 works in place, so a packet is
// copied first.
#pragma once

#define srtp_policy_t srtp2_policy_t
#include <srtp2/srtp.h>
#undef srtp_policy_t

#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

// Two errors of libsrtp 3 that libsrtp 2 does not have.
constexpr auto srtp_err_status_buffer_small = static_cast<srtp_err_status_t>(28);
constexpr auto srtp_err_status_cryptex_err  = static_cast<srtp_err_status_t>(29);

struct srtp3_policy
{
	srtp2_policy_t policy{};
	unsigned char key[SRTP_MAX_KEY_LEN]{};
};
using srtp_policy_t = srtp3_policy*;

inline srtp_err_status_t srtp_policy_create(srtp_policy_t* policy)
{
	*policy = new (std::nothrow) srtp3_policy();

	return *policy ? srtp_err_status_ok : srtp_err_status_alloc_fail;
}

inline void srtp_policy_destroy(srtp_policy_t policy)
{
	if (policy)
	{
		// The compiler would leave out a plain memset().
		for (volatile unsigned char& byte : policy->key)
		{
			byte = 0;
		}
	}

	delete policy;
}

inline srtp_err_status_t srtp_policy_set_ssrc(srtp_policy_t policy, srtp_ssrc_t ssrc)
{
	policy->policy.ssrc = ssrc;

	return srtp_err_status_ok;
}

inline srtp_err_status_t srtp_policy_set_profile(srtp_policy_t policy, srtp_profile_t profile)
{
	const auto error = srtp_crypto_policy_set_from_profile_for_rtp(&policy->policy.rtp, profile);

	return error ? error : srtp_crypto_policy_set_from_profile_for_rtcp(&policy->policy.rtcp, profile);
}

inline srtp_err_status_t srtp_policy_add_key(
  srtp_policy_t policy,
  const uint8_t* key,
  size_t keyLen,
  const uint8_t* salt,
  size_t saltLen,
  const uint8_t* /*mki*/,
  size_t mkiLen)
{
	// A policy has one key here, and no master key identifier. libsrtp 2 reads as many bytes as the profile's cipher
	// needs, so the profile must be set before.
	const auto wanted = static_cast<size_t>(policy->policy.rtp.cipher_key_len);

	if (
	  mkiLen != 0 || policy->policy.key || wanted > sizeof(policy->key) || keyLen > wanted ||
	  saltLen != wanted - keyLen)
	{
		return srtp_err_status_bad_param;
	}

	std::memcpy(policy->key, key, keyLen);
	std::memcpy(policy->key + keyLen, salt, saltLen);
	policy->policy.key = policy->key;

	return srtp_err_status_ok;
}

inline srtp_err_status_t srtp_policy_set_allow_repeat_tx(srtp_policy_t policy, bool allow)
{
	policy->policy.allow_repeat_tx = allow ? 1 : 0;

	return srtp_err_status_ok;
}

inline srtp_err_status_t srtp_policy_set_window_size(srtp_policy_t policy, size_t size)
{
	policy->policy.window_size = size;

	return srtp_err_status_ok;
}

inline srtp_err_status_t srtp_create(srtp_t* session, srtp_policy_t policy)
{
	return srtp_create(session, &policy->policy);
}

inline srtp_err_status_t srtp_stream_remove(srtp_t session, uint32_t ssrc)
{
	return srtp_remove_stream(session, ssrc);
}

// Copies the packet and lets `work` change the copy. `room` is the number of bytes that `work` may add.
template<typename Work>
inline srtp_err_status_t srtp3_in_place(
  const uint8_t* from, size_t fromLen, uint8_t* to, size_t* toLen, size_t room, Work work)
{
	if (fromLen > static_cast<size_t>(INT_MAX) - room || *toLen < fromLen + room)
	{
		return srtp_err_status_buffer_small;
	}

	if (to != from)
	{
		std::memmove(to, from, fromLen);
	}

	int len          = static_cast<int>(fromLen);
	const auto error = work(to, &len);

	if (!error)
	{
		*toLen = static_cast<size_t>(len);
	}

	return error;
}

inline srtp_err_status_t srtp_protect(
  srtp_t session, const uint8_t* rtp, size_t rtpLen, uint8_t* srtp, size_t* srtpLen, size_t /*mkiIndex*/)
{
	return srtp3_in_place(
	  rtp, rtpLen, srtp, srtpLen, SRTP_MAX_TRAILER_LEN, [=](uint8_t* packet, int* len) {
		  return srtp_protect(session, static_cast<void*>(packet), len);
	  });
}

inline srtp_err_status_t srtp_unprotect(
  srtp_t session, const uint8_t* srtp, size_t srtpLen, uint8_t* rtp, size_t* rtpLen)
{
	return srtp3_in_place(
	  srtp, srtpLen, rtp, rtpLen, 0, [=](uint8_t* packet, int* len) {
		  return srtp_unprotect(session, static_cast<void*>(packet), len);
	  });
}

inline srtp_err_status_t srtp_protect_rtcp(
  srtp_t session, const uint8_t* rtcp, size_t rtcpLen, uint8_t* srtcp, size_t* srtcpLen, size_t /*mkiIndex*/)
{
	// SRTCP adds an index of 4 bytes in front of the trailer.
	return srtp3_in_place(
	  rtcp, rtcpLen, srtcp, srtcpLen, SRTP_MAX_TRAILER_LEN + sizeof(uint32_t), [=](uint8_t* packet, int* len) {
		  return srtp_protect_rtcp(session, static_cast<void*>(packet), len);
	  });
}

inline srtp_err_status_t srtp_unprotect_rtcp(
  srtp_t session, const uint8_t* srtcp, size_t srtcpLen, uint8_t* rtcp, size_t* rtcpLen)
{
	return srtp3_in_place(
	  srtcp, srtcpLen, rtcp, rtcpLen, 0, [=](uint8_t* packet, int* len) {
		  return srtp_unprotect_rtcp(session, static_cast<void*>(packet), len);
	  });
}
